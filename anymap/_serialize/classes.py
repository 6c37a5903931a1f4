"""Classes that travel by value: made without running what their statements ran, and given all that they have.

A class here is the outcome of its statement, of its decorators, its metaclass, and the ``__init_subclass__`` of its bases.
None of these runs again where it is loaded: what they were called with is not known any more, and what they did is part of
the class, or of what else travels.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found]
import abc
import sys
import threading
from contextlib import contextmanager
from types import BuiltinFunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from anymap._host import forks

if TYPE_CHECKING:
    import enum
    from collections.abc import Iterator

_AT_BIRTH = ("__module__", "__slots__", "__dict__", "__classcell__")
"""What ``type.__new__`` has to be given: it cannot be set, or is too late to be."""


def parts(cls: type) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what to make a class of, see :func:`make`, and what to give it then, see :func:`fill`."""
    attributes = {name: value for name, value in vars(cls).items() if not _is_made_by_type(cls, value)}
    born = {name: attributes.pop(name) for name in _AT_BIRTH if name in attributes}
    if isinstance(born.get("__dict__"), GetSetDescriptorType):
        del born["__dict__"]
    if isinstance(cls, abc.ABCMeta):
        attributes["_abc_impl"] = [found for each in _abc._get_dump(cls)[0] if (found := each()) is not None]
    return (type(cls), cls.__name__, cls.__qualname__, cls.__bases__, born), attributes


def _is_made_by_type(cls: type, value: object) -> bool:
    """Tell whether it is a descriptor that a class gets for its slots, its instances' dictionary and weak references."""
    return isinstance(value, (GetSetDescriptorType, MemberDescriptorType)) and value.__objclass__ is cls


def make(meta: type, name: str, qualname: str, bases: tuple[type, ...], born: dict[str, Any]) -> type:
    """Make a class without attributes."""
    new = next(found for each in meta.__mro__ if isinstance(found := vars(each).get("__new__"), BuiltinFunctionType))
    with _without_hooks(bases):
        cls: type = new(meta, name, bases, {**born, "__qualname__": qualname})
    if issubclass(meta, abc.ABCMeta):
        _abc._abc_init(cls)
    return cls


def fill(cls: type, attributes: dict[str, Any]) -> None:
    """Give a class its attributes, whatever its metaclass says about setting them."""
    for name, value in attributes.items():
        if name == "_abc_impl":
            for registered in value:
                _abc._abc_register(cls, registered)
        else:
            type.__setattr__(cls, name, value)
    if "__firstlineno__" in attributes and sys.version_info >= (3, 13):
        # Setting __module__ or the like removes it.
        type.__setattr__(cls, "__firstlineno__", attributes["__firstlineno__"])


# --- __init_subclass__ ----------------------------------------------------------------------------------------------------


class _Making(threading.local):
    is_on = False


_making = _Making()
_hooks = forks.Lock()


@contextmanager
def _without_hooks(bases: tuple[type, ...]) -> Iterator[None]:
    """Have ``type.__new__`` not call the ``__init_subclass__`` of these bases in this thread."""
    owners = {each for base in bases for each in base.__mro__ if "__init_subclass__" in vars(each)} - {object}
    if not owners:
        yield
        return
    with _hooks:
        hooks = {owner: vars(owner)["__init_subclass__"] for owner in owners}
        for owner, hook in hooks.items():
            type.__setattr__(owner, "__init_subclass__", classmethod(_passing_on(hook)))
        _making.is_on = True
        try:
            yield
        finally:
            _making.is_on = False
            for owner, hook in hooks.items():
                type.__setattr__(owner, "__init_subclass__", hook)


def _passing_on(hook: Any) -> Any:
    def init_subclass(cls: type, /, *args: Any, **kwargs: Any) -> None:
        if not _making.is_on:
            hook.__get__(None, cls)(*args, **kwargs)

    return init_subclass


# --- enums ----------------------------------------------------------------------------------------------------------------


def member_parts(member: enum.Enum) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what to make a member of an enum of, which is still being made, and its attributes."""
    cls: Any = type(member)
    data = cls._member_type_
    if data is object or not hasattr(data, "__getnewargs__"):
        arguments = () if data.__reduce__ is object.__reduce__ else data.__reduce__(member)[1]
    else:
        arguments = data.__getnewargs__(member)
    return (cls, data, *arguments), vars(member)


def make_member(cls: type, data: Any, *arguments: Any) -> Any:
    return data.__new__(cls, *arguments)
