"""A program whose functions and classes no worker can import, and what holds for it on every backend.

``test_by_value`` loads it under a name that is nowhere. What holds for ``__main__`` is in ``test_scripts``.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import sys
import typing
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, NewType, ParamSpec, TypeVar, TypeVarTuple

import pytest

from anymap import Executor, pmap, share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap.backends import Backend


# --- one copy of the globals ----------------------------------------------------------------------------------------------

UNSET = object()


class Missing:
    """A sentinel with a class of its own."""


class Named:
    """A sentinel that says that it goes by its name."""

    def __reduce__(self) -> str:
        return "NAMED"


@dataclasses.dataclass(eq=False)
class Level:
    """One of few objects, which are compared by what they are."""

    name: str


MISSING, NAMED, HIGH = Missing(), Named(), Level("high")
SENTINELS = {"object": UNSET, "of a class": MISSING, "by name": NAMED, "with attributes": HIGH}
seen: list[int] = []
count = 0


class Options:
    def __init__(self, **given: object) -> None:
        self.given = {name: given.get(name, default) for name, default in SENTINELS.items()}

    def are_unset(self) -> bool:
        return [*self.given.values()] == [UNSET, MISSING, NAMED, HIGH]


def are_unset(options: Options) -> tuple[list[bool], bool, bool]:
    values = zip(options.given.values(), (UNSET, MISSING, NAMED, HIGH), strict=True)
    return [one is other for one, other in values], options.are_unset(), Options().are_unset()


def a_sentinel_is_one_object_in_the_function_in_its_classes_and_in_the_items(backend: Backend) -> None:
    assert pmap(are_unset, [Options()] * 2, backend=backend, workers=2) == [([True] * 4, True, True)] * 2


def a_sentinel_comes_back_as_the_callers_own(backend: Backend) -> None:
    [made] = pmap(lambda _: Options(), [0], backend=backend, workers=2)
    assert all(value is SENTINELS[name] for name, value in made.given.items())
    # It may have come with the item alone.
    items = [UNSET, [MISSING], {"a": NAMED}, (HIGH,)]
    back = pmap(lambda item: item, items, backend=backend, workers=2)
    assert (back[0], back[1][0], back[2]["a"], back[3][0]) == (UNSET, MISSING, NAMED, HIGH)


class Counter:
    def __call__(self) -> int:
        global count  # noqa: PLW0603 - that is what is tested
        count += 1
        seen.append(count)
        return count


def count_twice(_: int) -> tuple[int, int, int]:
    global count  # noqa: PLW0603 - that is what is tested
    count += 1
    Counter()()
    return count, counted(count), len(seen)


@functools.lru_cache
def counted(x: int) -> int:
    return len(seen)


def functions_and_methods_count_by_the_same_global(backend: Backend) -> None:
    global count  # noqa: PLW0603 - as above
    for _ in range(2):
        seen.clear()
        count = 0
        counted.cache_clear()
        counts = pmap(count_twice, range(3), backend=backend, workers=2, chunksize=3)
        assert counts == [(2, 1, 1), (4, 2, 2), (6, 3, 3)]


def remember(x: int, known: list[int] = seen) -> bool:
    return known is seen


class Remembering:
    known = seen

    def remembers(self, _: int) -> bool:
        return self.known is seen and Remembering.known is seen and remember(0)


def a_container_is_one_object_wherever_it_is_named(backend: Backend) -> None:
    assert pmap(remember, [0], backend=backend) == [True]
    assert pmap(lambda one: one.remembers(0) and remember(1), [Remembering()], backend=backend) == [True]


def helper(x: int) -> int:
    helper.calls += 1  # type: ignore[attr-defined]
    return x


def a_function_is_one_object_in_the_function_and_in_the_items(backend: Backend) -> None:
    helper.calls = 0  # type: ignore[attr-defined]

    def call(function: Any) -> tuple[bool, Any]:
        function(helper(1))
        return function is helper, function

    back = pmap(call, [helper, helper], backend=backend, workers=1, chunksize=2)
    assert back == [(True, helper)] * 2


def functions_that_share_a_variable_go_on_to_share_it(backend: Backend) -> None:
    def make() -> tuple[Any, Any]:
        number = 0

        def add() -> None:
            nonlocal number
            number += 1

        return add, lambda: number

    def use(pair: tuple[Any, Any]) -> int:
        pair[0]()
        return int(pair[1]())

    assert pmap(use, [make()], backend=backend) == [1]


def what_has_been_changed_comes_back_as_it_is(backend: Backend) -> None:
    def raise_level(item: tuple[Level, Options]) -> Level:
        level = Options().given["with attributes"]
        assert isinstance(level, Level)
        level.name += "er"
        return level

    if backend.traits.shares_memory:
        pytest.skip("the item is the caller's own")
    [back] = pmap(raise_level, [(HIGH, Options())], backend=backend)
    assert back is not HIGH
    assert (back.name, HIGH.name) == ("higher", "high")


def a_global_that_changes_while_a_map_runs_goes_with_items_as_it_is_now(backend: Backend) -> None:
    level = globals()["HIGH"]

    def levels() -> Iterator[Level]:
        for name in ("low", "lower"):
            level.name = name
            yield level

    try:
        found = pmap(
            lambda one: (one.name, HIGH is not None), levels(), backend=backend, chunksize=1, window=1, lazy=True
        )
        assert [name for name, _ in found] == ["low", "lower"]
    finally:
        level.name = "high"


def look_at_globals() -> tuple[int, list[int]]:
    return count, list(seen)


def look_by_another() -> int:
    return look_at_globals()[0]


def a_global_that_is_bound_anew_is_sent_anew_with_functions_that_are_items(backend: Backend) -> None:
    def functions() -> Iterator[Any]:
        global count  # noqa: PLW0603 - as above
        for value in (1, 2, 3):
            count = value
            yield look_by_another

    found = pmap(lambda look: look(), functions(), backend=backend, chunksize=1, window=1, lazy=True)
    assert list(found) == [1, 2, 3]


def each_call_of_an_executor_has_the_globals_of_its_own_time(backend: Backend) -> None:
    global count  # noqa: PLW0603 - as above
    with Executor(1, backend=backend) as executor:
        for value in (1, 2):
            count = value
            seen[:] = [value]
            assert executor.submit(look_at_globals).result() == (value, [value])
            assert executor.submit(are_unset, Options()).result() == ([True] * 4, True, True)
    count = 0
    seen.clear()


def a_sentinel_is_one_object_in_what_is_shared_too(backend: Backend) -> None:
    with share({"options": Options(), "unset": UNSET}) as handle:

        def look(_: int) -> tuple[bool, Any]:
            return handle.get()["unset"] is UNSET and handle.get()["options"].given["object"] is UNSET, handle.get()[
                "unset"
            ]

        assert pmap(look, [0], backend=backend) == [(True, UNSET)]


def an_object_that_only_a_module_of_the_standard_library_names_is_that_one(backend: Backend) -> None:
    sentinel = functools._initial_missing  # type: ignore[attr-defined]
    back = pmap(lambda one: (one is functools._initial_missing, one), [sentinel], backend=backend)  # type: ignore[attr-defined]
    assert back == [(True, sentinel)]


# --- classes --------------------------------------------------------------------------------------------------------------


class Planet(enum.Enum):
    """As in the documentation of enum."""

    MERCURY = (3.303e23, 2.4397e6)
    EARTH = (5.976e24, 6.37814e6)

    def __init__(self, mass: float, radius: float) -> None:
        self.mass = mass
        self.radius = radius

    @property
    def surface_gravity(self) -> float:
        return 6.67300e-11 * self.mass / (self.radius * self.radius)


class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    BOTH = READ | WRITE


class Size(enum.IntEnum):
    SMALL = 1
    ALSO_SMALL = 1


class Word(str, enum.Enum):  # noqa: UP042 - the old kind is one of the kinds
    YES = "yes"


def members_of_an_enum_are_the_same_there_and_back(backend: Backend) -> None:
    for kind in (Planet, Right, Size, Word):
        members = list(kind.__members__.values())
        back = pmap(
            lambda one: (one is type(one)[one.name] and one is type(one)(one.value), one), members, backend=backend
        )
        assert all(same and one is member for (same, one), member in zip(back, members, strict=True))


def an_enum_is_whole_in_a_worker(backend: Backend) -> None:
    gravities = pmap(lambda planet: planet.surface_gravity, list(Planet), backend=backend)
    assert gravities == [planet.surface_gravity for planet in Planet]
    assert pmap(lambda right: right | Right.WRITE, [Right.READ], backend=backend) == [Right.BOTH]
    assert pmap(lambda _: [*Size.__members__], [0], backend=backend) == [["SMALL", "ALSO_SMALL"]]


@dataclasses.dataclass
class Data:
    plain: int
    more: list[int] = dataclasses.field(default_factory=list)


class Base:
    kinds: ClassVar[list[type]] = []

    def __init_subclass__(cls, *, kind: str, **options: object) -> None:
        super().__init_subclass__(**options)
        cls.kind = kind  # type: ignore[attr-defined]
        Base.kinds.append(cls)


class Derived(Base, kind="one"):
    pass


class Meta(type):
    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, loud: bool = False) -> Meta:
        namespace["label"] = namespace["label"].upper() if loud else namespace["label"]
        return super().__new__(cls, name, bases, namespace)

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, loud: bool) -> None:
        super().__init__(name, bases, namespace)


class Labelled(metaclass=Meta, loud=True):
    label = "label"


class Left:
    def side(self) -> str:
        return "left"


class LeftToo(Left):
    pass


class Other:
    def side(self) -> str:
        return "other"


class Both(LeftToo, Other):
    side = Other.side


class Same(Other, Left):
    side = Left.side


class Abstract(abc.ABC):
    @abc.abstractmethod
    def do(self) -> int: ...


class Concrete(Abstract):
    def do(self) -> int:
        return 1


class Private:
    __slots__ = ("__hidden", "__weakref__")

    def __init__(self) -> None:
        self.__hidden = 5

    def hidden(self) -> int:
        return self.__hidden


class Told:
    told: ClassVar[list[str]] = []

    def __set_name__(self, owner: type, name: str) -> None:
        self.told.append(name)


class Telling:
    attribute = Told()


@functools.singledispatch
def describe(thing: object) -> str:
    return "object"


@describe.register
def _(thing: int) -> str:
    return "int"


@describe.register(Data)
def _(thing: Data) -> str:
    return f"data of {describe(thing.plain)}"


T = TypeVar("T")


class Pair(NamedTuple, Generic[T]):
    first: T


class Ints(Generic[T], list[T]):  # noqa: PYI059 - so that it has two bases
    pass


def look_at_classes(_: int) -> dict[str, Any]:
    return {
        "missing": dataclasses.fields(Data)[0].default is dataclasses.MISSING,
        "factory": Data(1).more == [],
        "kind": (Derived.kind, Base.kinds == [Derived]),  # type: ignore[attr-defined]
        "label": (Labelled.label, type(Labelled) is Meta),
        "sides": (Both().side(), Same().side()),
        "abstract": (Concrete().do(), Abstract.__abstractmethods__, isinstance(Concrete(), Abstract)),
        "slots": (Private().hidden(), hasattr(Private(), "__dict__")),
        "told": Told.told,
        "generic": (Pair(1).first, Ints.__parameters__ == (T,), Ints.__orig_bases__[0] == Generic[T]),  # type: ignore[attr-defined]
        "dispatch": [describe("a"), describe(1), describe(Data(1))],
    }


def a_class_is_in_a_worker_what_its_statement_has_made_of_it(backend: Backend) -> None:
    assert look_at_classes(0)["kind"] == ("one", True)
    assert look_at_classes(0)["dispatch"] == ["object", "int", "data of int"]
    assert pmap(look_at_classes, [0, 1], backend=backend, workers=2) == [look_at_classes(0)] * 2


def an_abstract_class_cannot_be_instantiated_in_a_worker_either(backend: Backend) -> None:
    [error] = pmap(lambda _: Abstract(), [0], backend=backend, on_error="return")  # type: ignore[abstract]
    assert isinstance(error, TypeError)


def a_generic_function_may_be_the_function(backend: Backend) -> None:
    assert pmap(describe, ["a", 1, Data(1)], backend=backend, workers=2) == ["object", "int", "data of int"]


# --- what typing pickles by its name --------------------------------------------------------------------------------------

UserId = NewType("UserId", int)
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")
Bound = TypeVar("Bound", bound=Base)
TYPES: list[Any] = [UserId, P, Ts, T, Bound]
if sys.version_info >= (3, 12):
    exec("type Tree = list[Tree]\ntype Row[X] = list[X]")
    TYPES += [globals()["Tree"], globals()["Row"]]


def what_typing_would_pickle_by_its_name_goes_and_comes_back_as_itself(backend: Backend) -> None:
    def look(one: Any) -> tuple[str, str, Any]:
        assert any(one is other for other in TYPES)
        return one.__name__, one.__module__, one

    back = pmap(look, TYPES, backend=backend, workers=2)
    assert back == [(one.__name__, __name__, one) for one in TYPES]
    assert pmap(lambda x: (UserId, UserId(x))[1], [3], backend=backend) == [3]
    assert pmap(lambda _: issubclass(Bound.__bound__, Base), [0], backend=backend) == [True]


def the_value_of_an_alias_goes_with_it(backend: Backend) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("the type statement is of Python 3.12")
    tree = globals()["Tree"]
    assert pmap(lambda _: typing.get_args(tree.__value__)[0] is tree, [0], backend=backend) == [True]


PROMISES = [
    a_global_that_is_bound_anew_is_sent_anew_with_functions_that_are_items,
    a_sentinel_is_one_object_in_the_function_in_its_classes_and_in_the_items,
    a_sentinel_comes_back_as_the_callers_own,
    functions_and_methods_count_by_the_same_global,
    a_container_is_one_object_wherever_it_is_named,
    a_function_is_one_object_in_the_function_and_in_the_items,
    functions_that_share_a_variable_go_on_to_share_it,
    what_has_been_changed_comes_back_as_it_is,
    a_global_that_changes_while_a_map_runs_goes_with_items_as_it_is_now,
    each_call_of_an_executor_has_the_globals_of_its_own_time,
    a_sentinel_is_one_object_in_what_is_shared_too,
    an_object_that_only_a_module_of_the_standard_library_names_is_that_one,
    members_of_an_enum_are_the_same_there_and_back,
    an_enum_is_whole_in_a_worker,
    a_class_is_in_a_worker_what_its_statement_has_made_of_it,
    an_abstract_class_cannot_be_instantiated_in_a_worker_either,
    a_generic_function_may_be_the_function,
    what_typing_would_pickle_by_its_name_goes_and_comes_back_as_itself,
    the_value_of_an_alias_goes_with_it,
]
