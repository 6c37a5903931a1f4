"""Where an object is found by its name: a module that other processes can import, and the path to the object in it."""

from __future__ import annotations

import importlib
import sys
from operator import attrgetter
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudpickle.cloudpickle import list_registry_pickle_by_value

from anymap._host import loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec


class Place(NamedTuple):
    """A module and a path in it."""

    module: str
    path: str


def is_importable(module: Any) -> bool:
    """Tell whether another process with the same path would import this very module; a test runner's may be nowhere."""
    name = module or "builtins"
    if not isinstance(name, str):
        return False
    if name not in _found:
        _found[name] = name != "__main__" and _is_found(name)
    return _found[name]


_found: dict[str, bool] = {}


def _is_found(name: str) -> bool:
    package = name.rpartition(".")[0]
    if package and not is_importable(package):
        return False
    path = loaded.variables(package).get("__path__", ()) if package else None
    spec = next(filter(None, (_ask(finder, name, path) for finder in sys.meta_path)), None)
    return spec is not None and _is_of(spec, loaded.variables(name))


def _ask(finder: Any, name: str, path: Any) -> ModuleSpec | None:
    try:
        found: ModuleSpec | None = finder.find_spec(name, path)
    except Exception:  # noqa: BLE001 - a finder of another package
        return None
    return found


def _is_of(spec: ModuleSpec, variables: dict[str, Any]) -> bool:
    """Tell whether what would be imported is what is here: another folder may hold something of the same name."""
    file = variables.get("__file__")
    if file is None:
        return list(spec.submodule_search_locations or ()) == list(variables.get("__path__", ()))
    return not spec.has_location or spec.origin == file


def by_name(module: str, path: str) -> Any:
    """Return what a loaded module has at a path, or ``None``."""
    try:
        return attrgetter(path)(sys.modules[module])
    except Exception:  # noqa: BLE001 - what is there may be no module, and answers as it likes
        return None


def place_of_class(cls: type) -> Place | None:
    """Return where workers find a class: at its name, or under another one that an importable module has for it."""
    if not is_importable(cls.__module__):
        return None
    own = _own_place(cls, cls.__module__, cls.__qualname__) or _place_in_class(cls)
    return own or next((Place(name, path) for name, path in _names_of(cls) if is_importable(name)), None)


def _place_in_class(cls: type) -> Place | None:
    module = cls.__module__
    for path, outer in _variables(module):
        if isinstance(outer, type) and outer.__module__ == module:
            for name, value in list(vars(outer).items()):
                if value is cls:
                    return Place(module, f"{path}.{name}")
    return None


def place_of_function(func: Any) -> Place | None:
    """Return where workers find a function: in its own module, by its name or another one."""
    return _own_place(func, func.__module__, func.__qualname__)


def _own_place(obj: Any, module: Any, path: str) -> Place | None:
    if not is_importable(module):
        return None
    name = module or "builtins"
    if by_name(name, path) is obj:
        return Place(name, path)
    return next((Place(name, other) for other, value in _variables(name) if value is obj), None)


def place_of_instance(obj: object) -> Place | None:
    """Return where workers find an object that an importable module, that of its class, has a name for."""
    kind = type(obj)
    if not is_importable(kind.__module__):
        return None
    return next((Place(kind.__module__, name) for name, value in _variables(kind.__module__) if value is obj), None)


def has_instances_beside(kind: type) -> bool:
    """Tell whether the module of a class has names for instances of it, as it has for sentinels."""
    if not is_importable(kind.__module__):
        return False
    variables = loaded.variables(kind.__module__)
    size, kinds = _kinds.get(kind.__module__, (-1, frozenset()))
    if size != len(variables):
        kinds = frozenset(map(id, map(type, list(variables.values()))))
        _kinds[kind.__module__] = len(variables), kinds
    return id(kind) in kinds


_kinds: dict[str, tuple[int, frozenset[int]]] = {}
"""The ids of the types of what each module has, and how many names that are."""


def place_of_bare(obj: object) -> Place | None:
    """Return which module has a name for an ``object()``, which knows no module itself; best one that can be imported."""
    found, place = _bare_objects().get(id(obj), (None, None))
    if found is obj:
        return place
    return next((Place("__main__", name) for name, value in _variables("__main__") if value is obj), None)


def _bare_objects() -> dict[int, tuple[object, Place]]:
    """Return all that modules have names for; looked for anew when there are more modules."""
    global _bare  # noqa: PLW0603 - a fact about the process
    size, latest, found = _bare
    now = len(sys.modules), next(reversed(sys.modules.values()))
    if size != now[0] or latest is not now[1]:
        named = [(value, Place(module, name)) for module, name, value in _all_variables() if type(value) is object]
        named.sort(key=lambda each: is_importable(each[1].module))
        found = {id(value): (value, place) for value, place in named}
        _bare = *now, found
    return found


_bare: tuple[int, ModuleType | None, dict[int, tuple[object, Place]]] = (0, None, {})
"""How many modules there were, the latest of them, and what they had."""


def _names_of(obj: object) -> Iterator[tuple[str, str]]:
    return ((module, name) for module, name, value in _all_variables() if value is obj)


def _all_variables() -> Iterator[tuple[str, str, Any]]:
    for module in list(sys.modules):
        for name, value in _variables(module):
            yield module, name, value


def _variables(module: str) -> list[tuple[str, Any]]:
    return list(loaded.variables(module).items())


def at_place(module: str, path: str) -> Any:
    """Stand in a pickle for what is found by a name."""
    return attrgetter(path)(importlib.import_module(module))


def class_at_place(module: str, path: str, described: tuple[str, str]) -> type:
    """Stand in a pickle for a class that is not found by its own name."""
    found = at_place(module, path)
    if (getattr(found, "__module__", None), getattr(found, "__qualname__", None)) != described:
        own = ".".join(described)
        raise AttributeError(f"{module}.{path} is not the class {own} here, as it was where it was pickled")
    return found  # type: ignore[no-any-return]


def is_global(func: FunctionType) -> bool:
    """Tell whether the globals of a function have it under its name."""
    return func.__globals__.get(func.__name__) is func


def is_registered(module: Any) -> bool:
    """Tell whether the user has asked cloudpickle for a module by value."""
    registered = list_registry_pickle_by_value()
    return isinstance(module, str) and any(module == name or module.startswith(f"{name}.") for name in registered)


def is_of_importable_module(variables: dict[str, Any], name: Any) -> bool:
    return is_importable(name) and loaded.variables(name or "builtins") is variables


def is_module_by_value(value: object) -> bool:
    if not issubclass(type(value), ModuleType):
        return False
    variables = loaded.dictionary(value)
    name = variables.get("__name__")
    if not isinstance(name, str) or sys.modules.get(name) is not value:
        return True
    if name != "__main__" and "." in name and variables.get("__spec__") is not None:
        return False  # a package may make modules as it is imported
    return not is_importable(name) or is_registered(name)
