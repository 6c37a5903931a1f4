"""What goes by its name with ``pickle`` and cloudpickle, and has to be made anew where that name means nothing."""

from __future__ import annotations

import functools
import typing
from types import CellType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from cloudpickle.cloudpickle import _extract_code_globals, _find_imported_submodules

from anymap._host import loaded
from anymap._serialize import importable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Reduced = tuple[Any, ...]

# --- functools ------------------------------------------------------------------------------------------------------------


def reduce_cache(cached: Any) -> _Reduced | None:
    """Return how to make anew what ``functools.lru_cache`` has made, with nothing in it; ``None`` where it has a name."""
    if importable.is_importable(cached.__module__):
        found = importable.by_name(cached.__module__ or "builtins", cached.__qualname__)
        if found is cached:
            return None
    return _cache, (cached.__wrapped__, cached.cache_parameters())


def _cache(func: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(func)


def reduce_cached_property(cached: functools.cached_property[Any]) -> _Reduced:
    # Before Python 3.12 it held a lock, which cannot be pickled.
    return _cached_property, (cached.func, cached.attrname)


def _cached_property(func: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    made = functools.cached_property(func)
    made.attrname = name
    return made


def _undecided(_: object) -> None:
    """Stand for what a generic function is made of, until that is there."""


_DISPATCHER = functools.singledispatch(_undecided).__code__  # type: ignore[attr-defined]
_OF_DISPATCHERS = {"register", "dispatch", "registry", "_clear_cache"}


def is_dispatcher(func: Any) -> bool:
    """Tell whether ``functools.singledispatch`` has made it: its cache refers weakly to classes."""
    return getattr(func, "__code__", None) is _DISPATCHER


def reduce_dispatcher(func: Any) -> _Reduced:
    attributes = {name: value for name, value in vars(func).items() if name not in _OF_DISPATCHERS}
    names = {name: getattr(func, name) for name in functools.WRAPPER_ASSIGNMENTS if hasattr(func, name)}
    return _dispatcher, (func.__name__,), (dict(func.registry), attributes, names), None, None, _set_dispatcher


def _dispatcher(name: str) -> Any:
    def undecided(_: object) -> None:
        """Stand for the function that is registered for ``object``."""

    undecided.__name__ = name
    return functools.singledispatch(undecided)


def _set_dispatcher(func: Any, state: tuple[dict[type, Any], dict[str, Any], dict[str, Any]]) -> None:
    registry, attributes, names = state
    for cls, implementation in registry.items():
        func.register(cls, implementation)
    vars(func).update(attributes)
    for name, value in names.items():
        setattr(func, name, value)


# --- typing ---------------------------------------------------------------------------------------------------------------

_ALIAS: Any = getattr(typing, "TypeAliasType", None)  # Python 3.12
_VARIABLES = (typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple)
TYPING = ("typing", "typing_extensions")


def reduce_typing(obj: Any) -> _Reduced | None:
    """Return how to make anew what ``typing`` pickles by its name; ``None`` for all else, and where the name is found."""
    if type(obj).__module__ not in TYPING or not hasattr(obj, "__name__"):
        return None
    if importable.is_importable(obj.__module__) and importable.by_name(obj.__module__, obj.__name__) is obj:
        return None
    if isinstance(obj, _VARIABLES):
        return (
            _make_variable,
            (type(obj), obj.__name__, *_variable_arguments(obj)),
            (None, {"__module__": obj.__module__}),
        )
    if isinstance(obj, typing.NewType):
        names = {name: getattr(obj, name) for name in ("__module__", "__qualname__")}
        return typing.NewType, (obj.__name__, obj.__supertype__), (None, names)
    if _ALIAS is not None and isinstance(obj, _ALIAS):
        if obj.__type_params__:
            return _make_generic_alias, (obj.__name__, obj.__module__, obj.__value__, obj.__type_params__)
        contents: list[Any] = []
        return _make_alias, (obj.__name__, obj.__module__, contents), (contents, obj.__value__), None, None, _set_alias
    return None


def _variable_arguments(variable: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    options = {"default": variable.__default__} if getattr(variable, "has_default", bool)() else {}
    if not isinstance(variable, typing.TypeVarTuple):
        for option in ("bound", "covariant", "contravariant", "infer_variance"):
            value = getattr(variable, f"__{option}__", None)
            if value:
                options[option] = value
    return getattr(variable, "__constraints__", ()), options


def _make_variable(kind: type, name: str, constraints: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return kind(name, *constraints, **options)


def _make_generic_alias(name: str, module: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    # It takes its module from the frame that calls it.
    variables = {"__name__": module, "arguments": (name, value), "parameters": parameters, "make": _ALIAS}
    return eval("make(*arguments, type_params=parameters)", variables)  # noqa: S307 - our own words


def _make_alias(name: str, module: str, contents: list[Any]) -> Any:
    # By a statement, which does not ask for its value yet: that may mention the alias.
    variables = {"__name__": module, "_value": lambda: contents[0]}
    exec(f"type {name} = _value()", variables)  # noqa: S102 - the name of a type statement
    return variables[name]


def _set_alias(_: object, state: tuple[list[Any], Any]) -> None:
    contents, value = state
    contents.append(value)


# --- functions ------------------------------------------------------------------------------------------------------------

_OWN_NAMES = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__", "__annotations__")
_EMPTY = "anymap: a closure variable that has not been assigned"


def function_state(func: FunctionType) -> tuple[dict[str, Any], dict[str, Any], list[Any], list[ModuleType]]:
    """Return what to give a function that was made of its code: attributes, names, closure, and modules to be imported."""
    names = {name: getattr(func, name) for name in _OWN_NAMES}
    names["__type_params__"] = getattr(func, "__type_params__", ())  # Python 3.12
    closure = [_contents(cell) for cell in func.__closure__ or ()]
    values = [*used_globals(func).values(), *closure]
    return dict(vars(func)), names, closure, _find_imported_submodules(func.__code__, values)


def used_globals(func: FunctionType) -> dict[str, Any]:
    known = func.__globals__
    return {name: known[name] for name in _extract_code_globals(func.__code__) if name in known}


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return _EMPTY


def make_function(code: Any, variables: dict[str, Any], cells: tuple[CellType, ...] | None) -> FunctionType:
    return FunctionType(code, variables, None, None, cells)


def set_function(func: FunctionType, attributes: dict[str, Any], names: dict[str, Any], closure: list[Any]) -> None:
    vars(func).update(attributes)
    for name, value in names.items():
        if name != "__type_params__" or value:
            setattr(func, name, value)
    for cell, contents in zip(func.__closure__ or (), closure, strict=True):
        if contents != _EMPTY:
            cell.cell_contents = contents


def names_in(code: Any) -> set[str]:
    """Return the names that a code object and those nested in it look up."""
    nested = (const for const in code.co_consts if hasattr(const, "co_names"))
    return set(code.co_names).union(*map(names_in, nested))


def functions_used(func: FunctionType) -> list[FunctionType]:
    """Return a function and all those that it finds among its globals, and they among theirs, as long as they go by value."""
    found, seen = [func], {id(func)}
    for each in found:
        for value in used_globals(each).values():
            if type(value) is FunctionType and id(value) not in seen and not importable.is_importable(value.__module__):
                seen.add(id(value))
                found.append(value)
    return found


def modules_used(func: FunctionType, values: list[Any]) -> Iterator[tuple[ModuleType, dict[str, Any]]]:
    """Yield each module among the values of a function's variables that cannot be imported, and what it may look up there."""
    modules, seen = [value for value in values if importable.is_module_by_value(value)], set()
    looked_up = names_in(func.__code__) if modules else set()
    for module in modules:
        if id(module) not in seen:
            seen.add(id(module))
            variables = {name: value for name, value in loaded.dictionary(module).items() if name in looked_up}
            modules += [value for value in variables.values() if importable.is_module_by_value(value)]
            yield module, variables
