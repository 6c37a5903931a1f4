"""How an exception is pickled and copied: in parts, as the arguments of its constructor are not known.

A class that has a reducer of its own says what of its instances travels. There are reducers that give no more than the
class, so what they give is compared, and what they have lost is sent along.
"""

from __future__ import annotations

import builtins
import copyreg
import io
import pickle
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from anymap._host import by_value, guarded
from anymap._serialize.object_table import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

E = TypeVar("E", bound=BaseException)
_Reduced = str | tuple[Any, ...]

_BUILT_IN = {
    id(kind): kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)
}
_ARGUMENTS_ALONE = {key for key, kind in _BUILT_IN.items() if kind.__basicsize__ == BaseException.__basicsize__}
"""Those that have no other fields, and take any arguments."""
_REDUCERS = ("__reduce_ex__", "__reduce__", "__setstate__")
_ARGUMENTS = {"args": vars(BaseException)["args"]}
_DESCRIPTORS = (MemberDescriptorType, GetSetDescriptorType)
_NO_FIELDS = ("__dict__", "__weakref__")
_NOT_SENT = (vars(AttributeError)["obj"], *(vars(BaseExceptionGroup)[name] for name in ("message", "exceptions")))
"""What has no attribute may be of any size, and ``pickle`` does not send it either. Groups are made of the others."""


class _ByName(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return reduce(obj) if issubclass(type(obj), BaseException) else NotImplemented


class _ByValue(by_value.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return reduce(obj) if issubclass(type(obj), BaseException) else super().reducer_override(obj)


def dumps(value: object, *, by_name: bool = False) -> bytes:
    """Pickle what may hold exceptions and concerns no map; ``by_name``: no class or function goes by value."""
    file = io.BytesIO()
    (_ByName if by_name else _ByValue)(file, protocol=5).dump(value)
    return file.getvalue()


def reduce(exc: BaseException) -> _Reduced:
    """Return what ``__reduce__`` should."""
    if id(type(exc)) in _ARGUMENTS_ALONE:
        return BaseException.__reduce__(exc)
    for attempt in (_by_own_reducer, _in_parts):
        try:
            if (reduced := attempt(exc)) is not None:
                return reduced
        except Exception:  # noqa: BLE001, S112 - the class's own; and one in C may have no instances without its arguments
            continue
    return exc.__reduce_ex__(5)


def copy(exc: E) -> E:
    """Return another exception like this one. Raises an error where there cannot be one."""
    reduced = reduce(exc)
    if isinstance(reduced, str):
        raise TypeError(f"there is one {guarded.type_name(exc)}")
    copied: E = _made(*reduced)
    return copied


# --- what an exception holds --------------------------------------------------------------------------------------------


class _State(NamedTuple):
    fields: dict[str, Any]
    """Its arguments, its slots, and what classes in C have."""
    attributes: dict[str, Any]


def _state(exc: BaseException) -> _State:
    fields = {}
    for name, field in _fields(type(exc)).items():
        try:
            fields[name] = field.__get__(exc)
        except Exception:  # noqa: BLE001, S112 - it is not set
            continue
    return _State(fields, dict(guarded.attributes(exc)))


def _fields(kind: type) -> dict[str, Any]:
    return _ARGUMENTS | {
        name: field
        for each in reversed(kind.__mro__[:-1])
        if id(each) not in _ARGUMENTS_ALONE
        for name, field in vars(each).items()
        if type(field) in _DESCRIPTORS
        if name not in _NO_FIELDS and field not in _NOT_SENT
    }


def _fill(exc: BaseException, state: _State) -> None:
    fields = _fields(type(exc))
    for name, value in state.fields.items():
        fields[name].__set__(exc, value)
    guarded.attributes(exc).update(state.attributes)


def _missing(exc: BaseException, made: BaseException) -> _State:
    """Return what ``exc`` holds and ``made`` does not."""
    whole, there = _state(exc), _state(made)
    return _State(_not_in(there.fields, whole.fields), _not_in(there.attributes, whole.attributes))


def _not_in(there: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in whole.items() if name not in there or not _is_same(value, there[name])}


def _is_same(value: Any, other: Any) -> bool:
    try:
        return value is other or (type(value) is type(other) and bool(value == other))
    except Exception:  # noqa: BLE001 - arrays have no truth, and __eq__ is the user's
        return False


# --- in parts, and by the class's own reducer ---------------------------------------------------------------------------


def _in_parts(exc: BaseException) -> _Reduced:
    contents = (guarded.text(exc), guarded.members(exc)) if guarded.is_group(exc) else ()
    bare = _bare(type(exc), *contents)
    state = _missing(exc, bare)
    _fill(bare, state)  # what cannot be set is known here
    return _bare, (type(exc), *contents), state, None, None, _fill


def _bare(kind: type[BaseException], *contents: Any) -> BaseException:
    return _built_in_base(kind).__new__(kind, *contents)


def _built_in_base(kind: Any) -> type[BaseException]:
    while id(kind) not in _BUILT_IN:
        kind = kind.__base__
    found: type[BaseException] = kind
    return found


def _by_own_reducer(exc: BaseException) -> _Reduced | None:
    """Return what the class's own reducer gives, completed; ``None`` if it has none, or one that gives another text."""
    reduced = _own_reduction(exc)
    if reduced is None or isinstance(reduced, str):
        return reduced
    made = _made(*reduced)
    if type(made) is not type(exc):
        return None
    lost = _State(
        *({name: value for name, value in each.items() if _can_travel(value)} for each in _missing(exc, made))
    )
    _fill(made, lost)
    if guarded.text(made) != guarded.text(exc):
        return None
    return (_made, reduced, lost, None, None, _fill) if any(lost) else reduced


def _own_reduction(exc: BaseException) -> _Reduced | None:
    kind, base = type(exc), _built_in_base(type(exc))
    reducer = copyreg.dispatch_table.get(kind)
    # tblib's, which distributed has set for all classes, calls constructors, too.
    if reducer is not None and getattr(reducer, "__module__", None) != "tblib.pickling_support":
        return reducer(exc)
    has_own = any(getattr(kind, name) is not getattr(base, name) for name in _REDUCERS)
    return exc.__reduce_ex__(5) if has_own else None


def _made(
    make: Callable[..., Any],
    arguments: tuple[Any, ...],
    state: Any = None,
    items: object = None,
    pairs: object = None,
    fill: Callable[[Any, Any], object] | None = None,
) -> Any:
    """Do what ``pickle`` does with a reduction."""
    if items is not None or pairs is not None:
        raise TypeError("an exception is no container")
    made = make(*arguments)
    if fill is not None:
        fill(made, state)
    elif state is not None:
        made.__setstate__(state)
    return made


def _can_travel(value: object) -> bool:
    """Tell whether it can be pickled; a reducer leaves out what cannot."""
    if type(value) in PLAIN:
        return True
    try:
        by_value.dumps(value)
    except Exception:  # noqa: BLE001 - whatever it is, it stays
        return False
    return True
