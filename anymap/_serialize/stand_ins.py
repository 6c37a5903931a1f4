"""What stands in pickles for classes, functions and their globals, and makes them where it is loaded."""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING, Any

from cloudpickle.cloudpickle import _DYNAMIC_CLASS_TRACKER_BY_ID, _lookup_class_or_track

from anymap._serialize import classes, object_table, rebuilt

if TYPE_CHECKING:
    from types import FunctionType

_unfilled: set[int] = set()
"""The ids of classes that have been made, and are to get their attributes."""


def make_class(map_id: str, number: int, *parts: Any) -> type:
    """Make a class of a map; where there is another one to take its place, that."""
    table = object_table.table_of(map_id)
    found: type | None = table.find_known(number)
    return _make_unfilled(parts) if found is None else found


def make_class_once(tracker: str, *parts: Any) -> type:
    """Make a class that has come to be in a worker."""
    found: type | None = _DYNAMIC_CLASS_TRACKER_BY_ID.get(tracker)
    return _lookup_class_or_track(tracker, _make_unfilled(parts)) if found is None else found


def _make_unfilled(parts: tuple[Any, ...]) -> type:
    cls = classes.make(*parts)
    _unfilled.add(id(cls))
    return cls


def fill_class(cls: type, attributes: dict[str, Any]) -> None:
    if id(cls) in _unfilled:
        _unfilled.discard(id(cls))
        classes.fill(cls, attributes)


def make_sentinel(map_id: str, number: int, cls: type) -> Any:
    """Make an object that is only ever compared; where there is another one to take its place, that."""
    found = object_table.table_of(map_id).find_known(number)
    return copyreg.__newobj__(cls) if found is None else found  # type: ignore[attr-defined]


def set_function(func: FunctionType, state: tuple[Any, ...]) -> None:
    attributes, names, closure, *_ = state
    rebuilt.set_function(func, attributes, names, closure)


def set_variables(variables: dict[str, Any], values: dict[str, Any]) -> None:
    variables.update(values)


def first(value: Any, *_: object) -> Any:
    """Stand in a pickle for one thing, when others have been loaded too."""
    return value


def set_nothing(_: object, state: object) -> None:
    """Have the parts of an object loaded that need not be told of it."""
