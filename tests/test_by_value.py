"""Functions, classes and modules that no worker can import: one copy of each, and of their globals, as in one process."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from anymap import Executor, pmap
from anymap._serialize import classes, importable
from anymap._serialize.object_table import sender_table
from anymap._serialize.packing import pack, unpack
from anymap.backends import Processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap.backends import Backend

pytestmark = pytest.mark.versions


def load(name: str, path: Path) -> Any:
    """Load a module as programs load plug-ins: by its file, under a name that nothing finds it by."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


program = load("program_of_test_by_value", Path(__file__).with_name("by_value.py"))


def name(promise: Any) -> str:
    return str(promise.__name__)


@pytest.mark.parametrize("promise", program.PROMISES, ids=name)
def test_of_a_program(backend: Backend, promise: Any) -> None:
    promise(backend)


def test_objects_without_a_name_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[int] = []
    walk = importable._all_variables
    monkeypatch.setattr(importable, "_all_variables", lambda: walks.append(1) or walk())
    _, refused = pack([[object()] for _ in range(100)], sender_table())
    assert not refused
    assert len(walks) <= 1


@pytest.mark.processes
def test_a_subclass_that_is_made_while_classes_are_loaded_calls_its_hook() -> None:
    made: list[str] = []

    class Hooked:
        def __init_subclass__(cls) -> None:
            made.append(cls.__name__)

    hook = vars(Hooked)["__init_subclass__"]
    with classes._without_hooks((Hooked,)):
        thread = threading.Thread(target=lambda: type("InAThread", (Hooked,), {}))
        thread.start()
        thread.join()
        type("Here", (Hooked,), {})
    assert made == ["InAThread"]
    assert vars(Hooked)["__init_subclass__"] is hook


# --- names that are not where things live ---------------------------------------------------------------------------------

MODULES = {
    "made_by_test": """
        import collections, enum

        Sample = collections.namedtuple("sample", "x")

        def make_class():
            class Local:
                def __init__(self, x):
                    self.x = x
            return Local

        def make_enum():
            class Local(enum.Enum):
                A = 1
            return Local

        def adder(by):
            def add(x):
                return x + by
            return add

        class Outer:
            Inner = make_class()

        Thing, Color, add_three, UNSET = make_class(), make_enum(), adder(3), object()

        def is_unset(x):
            return x is UNSET
    """,
    "bound_by_test": """
        import made_by_test
        Thing, Color = made_by_test.make_class(), made_by_test.make_enum()
    """,
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Backend) -> Iterator[tuple[Any, Any]]:
    """Give two modules that workers can import."""
    if backend.traits.remote or backend.name == "joblib":
        pytest.skip("the workers of another's cluster, and those that joblib keeps, have a path of their own")
    yield from imported(tmp_path, monkeypatch)


def imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    for name, code in MODULES.items():
        (folder / f"{name}.py").write_text(dedent(code))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("made_by_test"), importlib.import_module("bound_by_test")
    for name in MODULES:
        sys.modules.pop(name, None)


def test_a_class_that_lives_under_another_name_is_found_there(backend: Backend, modules: tuple[Any, Any]) -> None:
    made, bound = modules
    for find in (
        lambda: made.Sample,
        lambda: made.Thing,
        lambda: made.Outer.Inner,
        lambda: bound.Thing,
    ):
        [(same, back)] = pmap(lambda one, find=find: (type(one) is find(), find()(2)), [find()(1)], backend=backend)
        assert same
        assert type(back) is find()
    for enumeration in (made.Color, bound.Color):
        [back] = pmap(lambda one: one, [enumeration.A], backend=backend)
        assert back is enumeration.A
    assert pmap(lambda one: one is made.Color.A, [made.Color.A], backend=backend) == [True]
    assert pmap(lambda one: one is bound.Color.A, [bound.Color.A], backend=backend) == [True]


def test_a_class_that_lives_nowhere_goes_by_value(backend: Backend, modules: tuple[Any, Any]) -> None:
    local = modules[0].make_class()
    [(same, back)] = pmap(lambda one: (type(one) is local, local(2)), [local(1)], backend=backend)
    assert same
    assert type(back) is local


def test_a_function_that_lives_under_another_name_is_found_there(backend: Backend, modules: tuple[Any, Any]) -> None:
    made, _ = modules
    [(same, back)] = pmap(lambda function: (function is made.add_three, function), [made.add_three], backend=backend)
    assert same
    assert back is made.add_three


def test_a_sentinel_of_a_module_is_that_of_the_module(backend: Backend, modules: tuple[Any, Any]) -> None:
    made, _ = modules
    unset, is_unset = made.UNSET, made.is_unset
    assert pmap(lambda one: (is_unset(one), is_unset(unset), one), [unset], backend=backend) == [(True, True, unset)]


def test_a_name_that_stands_for_another_class_elsewhere_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(made, _)] = imported(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "made_by_test", made)
    with pytest.raises(AttributeError, match=r"made_by_test\.Thing is not the class other\.Class here"):
        importable.class_at_place("made_by_test", "Thing", ("other", "Class"))


# --- modules that cannot be imported --------------------------------------------------------------------------------------

PLUGIN = """
import threading
LOCK = threading.Lock()
BY, calls = 5, 0

class Plugged:
    def by(self):
        return BY

def helper(x):
    return x + BY

def use(x):
    global calls
    calls += 1
    return helper(x) + 100 * calls
"""


def from_file(folder: Path) -> Any:
    (folder / "plugged_by_test.py").write_text(PLUGIN)
    return load("plugged_by_test", folder / "plugged_by_test.py")


def from_code(_: Path) -> ModuleType:
    """Make a module of no file at all."""
    module = ModuleType("plugged_by_test")
    exec(PLUGIN, vars(module))
    return module


@pytest.fixture(params=[from_file, from_code])
def plug(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = request.param(tmp_path)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_module_that_cannot_be_imported_goes_with_what_uses_it(backend: Backend, plug: Any) -> None:
    options: dict[str, Any] = {"backend": backend, "workers": 2, "chunksize": 3}
    for use in (plug.use, lambda x: plug.use(x + 0)):
        plug.calls = 0
        assert pmap(use, range(3), **options) == [105, 206, 307]
    plug.calls = 0
    assert pmap(lambda use: use(1) + 1000 * plug.calls, [plug.use], **options) == [1106]
    [(same, by, back)] = pmap(lambda one: (type(one) is plug.Plugged, one.by(), one), [plug.Plugged()], **options)
    assert (same, by, type(back)) == (True, 5, plug.Plugged)
    with Executor(1, backend=backend) as executor:
        plug.calls = 0
        assert executor.submit(lambda x: plug.use(x + 0), 1).result() == 106


def test_a_module_that_the_program_does_not_even_register_goes_too(backend: Backend, tmp_path: Path) -> None:
    module = from_code(tmp_path)
    assert pmap(lambda x: module.helper(x + 0), range(2), backend=backend) == [5, 6]


# --- forks, and what travels ----------------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("promise", program.PROMISES, ids=name)
def test_in_forks(promise: Any) -> None:
    promise(Processes(start_method="fork"))


def test_what_cannot_be_pickled_leaves_nothing_half_known() -> None:
    class Broken:
        def __reduce__(self) -> Any:
            raise TypeError("it stays here")

    class Holder:
        held: Any = Broken()

    table = sender_table()
    for _ in range(2):
        _, refused = pack([[Holder()]], table)
        assert "it stays here" in str(refused[0])
    Holder.held = None
    payload, refused = pack([[Holder()]], table)
    assert not refused
    assert len(unpack(payload)) == 1
