"""How one object of the user's is pickled for a map: by its name, by its number, or by value.

The pickler of an item, or of a result, has no blob: what is to have a number it writes to a blob of its own first.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import importlib
import io
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudpickle.cloudpickle import (
    _BUILTIN_TYPE_NAMES,
    _builtin_type,
    _get_or_create_tracker_id,
    _make_empty_cell,
    _should_pickle_by_reference,
    subimport,
)

from anymap._host import by_value, loaded, random_state
from anymap._serialize import classes, exception_parts, object_table, rebuilt, stand_ins
from anymap._serialize import importable as _importable
from anymap._serialize.calls import Call
from anymap._serialize.object_table import Blob, Entry, Reduced

if TYPE_CHECKING:
    import pickle
    from collections import ChainMap
    from collections.abc import Callable
    from typing import Protocol

    from anymap._serialize.importable import Place
    from anymap._serialize.object_table import Namespace, ObjectTable

    class Writable(Protocol):
        def write(self, data: Any, /) -> object: ...


_Reduction = tuple[Any, ...]
_LIKE_NO_OTHER = (object, CellType)
"""Types whose instances are each looked at, as what becomes of one says nothing of the others."""
_OF_IMPORT = ("__builtins__", "__loader__", "__spec__", "__cached__")
"""What a module has of its import."""


class Reference:
    """What a map does not pickle by its parts: it decides itself how it travels."""

    def __init__(self) -> None:
        self.serial_number = next(object_table.births)

    def reduce_for(self, pickler: Pickler) -> _Reduction:
        """Return what ``__reduce__`` would, for the map whose pickler this is."""
        raise NotImplementedError


class _Space(NamedTuple):
    """What stands in a pickle for the globals of functions, and for the module that has them."""

    variables: Reduced
    module: Reduced
    namespace: Namespace | None
    """``None``: it goes with this pickle, and is known to no other."""


class Pickler(by_value.Pickler):
    """cloudpickle's, for one map."""

    def __init__(
        self,
        file: Writable,
        table: ObjectTable,
        blob: Blob | None = None,
        buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None,
    ) -> None:
        self.dispatch_table = _flat(by_value.Pickler.dispatch_table)
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.table = table
        self.left_out: dict[Reference, None] = {}
        self._blob = blob
        self._instances = table.instances
        # To find out takes microseconds, and the items of a payload are mostly of the same kind. By their ids: a metaclass
        # may say what it likes about equality.
        self._ordinary = _ordinary.copy()
        """Types whose instances go as ``pickle`` has them go."""
        self._named: dict[int, Any] = _ours.copy()
        """Classes and functions that go by their names."""
        self._begin()

    def _begin(self) -> None:
        self._is_call = False
        """What it pickles is a call: one of many that follow each other, each with the globals of its own time."""
        self._spaces: dict[int, _Space] = {}
        self._cells: set[int] = set()
        self._enums: set[int] = set()

    def forget(self) -> None:
        """Begin another pickle, which refers to nothing in the last one."""
        self.clear_memo()
        if self._spaces or self._enums or self._is_call:
            self._begin()

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if id(obj) in self._instances:
            reduced = self._reduce_known(obj)
            if reduced is not NotImplemented:
                return reduced
        if id(kind) in self._ordinary or id(obj) in self._named:
            return NotImplemented
        if kind is Reduced:
            return obj.reduced
        reduced = self._reduce(obj)
        if reduced is NotImplemented:
            if isinstance(obj, (type, FunctionType, functools._lru_cache_wrapper)):
                self._named[id(obj)] = obj
            elif kind not in _LIKE_NO_OTHER and not _importable.has_instances_beside(kind):
                self._ordinary[id(kind)] = kind
        return reduced

    def _reduce(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType:
            return self._reduce_function(obj)
        if kind is CellType:
            return (_make_empty_cell, ()) if id(obj) in self._cells else NotImplemented
        if issubclass(kind, type):
            return self._reduce_class(obj)
        if issubclass(kind, ModuleType):
            return self._reduce_module(obj)
        if isinstance(obj, Reference):
            return obj.reduce_for(self)
        if kind is Call:
            self._is_call = True
            return obj.__reduce__()
        return self._reduce_instance(obj, kind)

    def _reduce_instance(self, obj: Any, kind: type) -> Any:
        if issubclass(kind, BaseException):
            return exception_parts.reduce(obj)
        if isinstance(obj, enum.Enum) and id(kind) in self._enums:
            return classes.make_member, *classes.member_parts(obj)
        if isinstance(obj, functools._lru_cache_wrapper):
            return self._reduce_variable_of(obj.__module__, obj) or rebuilt.reduce_cache(obj) or NotImplemented
        if isinstance(obj, functools.cached_property):
            return rebuilt.reduce_cached_property(obj)
        if kind is object:
            return self._reduce_bare(obj)
        if kind.__module__ in rebuilt.TYPING:
            module = getattr(obj, "__module__", None)
            return self._reduce_variable_of(module, obj) or rebuilt.reduce_typing(obj) or NotImplemented
        if not _importable.is_importable(kind.__module__) and kind not in self.dispatch_table:
            return self._reduce_variable_of(kind.__module__, obj) or self._reduce_own(obj, kind)
        place = self._importable_place(obj)
        return NotImplemented if place is None else (_importable.at_place, place)

    # --- objects that have a number, or are to have one -----------------------------------------------------------------

    def _write(self, root: Callable[[Pickler], object]) -> None:
        """Write a blob for the map, with what ``root`` returns for the pickler of it."""
        with self.table.lock:
            blob, file = self.table.new_blob(), io.BytesIO()
            pickler = Pickler(file, self.table, blob)
            pickler.dump(root(pickler))
            pickler.dump(blob.numbered())
            self.table.left_out.update(pickler.left_out)
            self.table.commit(blob, file.getvalue())

    def _refer(self, entry: Entry) -> _Reduction:
        return object_table.known, (self.table.map_id, entry.blob, entry.number)

    def _reduce_known(self, obj: Any) -> Any:
        """Reduce an object that has a number, or is the value of a variable."""
        entry, place = self.table.entry(obj), self.table.place(obj)
        if entry is None and (importable := self._importable_place(obj)) is not None:
            return _importable.at_place, importable
        if self._blob is not None:
            return self._refer(entry) if entry is not None else self._enter(obj, place)
        is_code = _goes_by_name(obj)
        if entry is None and place is not None and self.table.is_senders:
            if not is_code and object_table.plain_state(obj) is None:
                return NotImplemented
            self._write_variables(place[0], {place[1]: obj})
            entry = self.table.entry(obj)
        return self._refer(entry) if entry is not None and (is_code or entry.is_unchanged()) else NotImplemented

    def _importable_place(self, obj: object) -> Place | None:
        """Return where workers find an object of which only one is ever wanted, if they can import it."""
        kind = type(obj)
        if kind is object:
            place = _importable.place_of_bare(obj)
            return place if place is not None and _importable.is_importable(place.module) else None
        if kind.__module__ in random_state.HOMES:
            return _importable.place_of_instance(obj)
        if _importable.has_instances_beside(kind) and object_table.is_sentinel(obj):
            return _importable.place_of_instance(obj)
        return None

    def _enter(self, obj: Any, place: Any) -> Any:
        assert self._blob is not None  # noqa: S101 - as the caller has seen
        if place is None:
            return NotImplemented
        number = self._blob.enter(obj, self.table.numbers)
        if object_table.is_sentinel(obj):
            return stand_ins.make_sentinel, (self.table.map_id, number, type(obj))
        return NotImplemented

    def _reduce_bare(self, obj: object) -> Any:
        """Reduce an ``object()``, which is only ever compared: find the module that has a name for it."""
        place = _importable.place_of_bare(obj)
        if place is None:
            return NotImplemented
        if _importable.is_importable(place.module):
            return _importable.at_place, place
        if object_table.is_fork and not self.table.is_senders:
            return object_table.inherited, place
        return self._reduce_variable_of(place.module, obj) or NotImplemented

    def _reduce_variable_of(self, module: Any, obj: object) -> _Reduction | None:
        """Reduce the value of a variable of a module whose variables the map does not know yet, if it is one."""
        if not self.table.is_senders or _importable.is_importable(module) or id(obj) in self._instances:
            return None
        if not (variables := loaded.variables(module)):
            return None
        self.table.namespace(variables)
        reduced = self._reduce_known(obj) if id(obj) in self._instances else NotImplemented
        return None if reduced is NotImplemented else reduced

    def _reduce_own(self, obj: Any, kind: type) -> Any:
        """Reduce an instance of a class that travels by value. Such a one may say that it goes by its name."""
        if not object_table.reduces_itself(kind):
            return NotImplemented
        reduced = obj.__reduce_ex__(5)
        if not isinstance(reduced, str):
            self._ordinary[id(kind)] = kind
            return reduced
        # A function that Cython has made is found in its own module; its type is in none that can be imported.
        module = getattr(obj, "__module__", None)
        if (
            isinstance(module, str)
            and _importable.is_importable(module)
            and _importable.by_name(module, reduced) is obj
        ):
            return reduced
        if object_table.is_fork and not self.table.is_senders and _importable.by_name(kind.__module__, reduced) is obj:
            return object_table.inherited, (kind.__module__, reduced)
        return copyreg.__newobj__, (kind,), obj.__getstate__()  # type: ignore[attr-defined]

    # --- classes --------------------------------------------------------------------------------------------------------

    def _reduce_class(self, cls: type) -> Any:
        if cls in _BUILTIN_TYPE_NAMES:
            return _builtin_type, (_BUILTIN_TYPE_NAMES[cls],)
        if _should_pickle_by_reference(cls) and _importable.is_importable(cls.__module__):
            return NotImplemented
        entry = self.table.entry(cls)
        if entry is not None:
            return self._refer(entry)
        place = None if _importable.is_registered(cls.__module__) else self.table.place_of_class(cls)
        if place is not None:
            return _importable.class_at_place, (*place, (cls.__module__, cls.__qualname__))
        return self._reduce_class_by_value(cls)

    def _reduce_class_by_value(self, cls: type) -> _Reduction:
        if self._blob is not None:
            self._enums.add(id(cls))
            number = self._blob.enter(cls, self.table.numbers)
            made, attributes = classes.parts(cls)
            attributes = {name: self._stand_in(value) for name, value in attributes.items()}
            return (
                stand_ins.make_class,
                (self.table.map_id, number, *made),
                attributes,
                None,
                None,
                stand_ins.fill_class,
            )
        if self.table.is_senders:
            self._write(lambda _: cls)
            return self._refer(self.table.entry(cls))  # type: ignore[arg-type]
        return self._reduce_class_from_here(cls)

    def _reduce_class_from_here(self, cls: type) -> _Reduction:
        """Reduce a class that is not the map's."""
        found = object_table.adopted_entry(cls)
        if found is not None:
            table, entry = found
            return object_table.known, (table.map_id, entry.blob, entry.number)
        place = cls.__module__, cls.__qualname__
        if object_table.is_fork and _importable.by_name(*place) is cls:
            return object_table.inherited, place
        self._enums.add(id(cls))
        made, attributes = classes.parts(cls)
        return (
            stand_ins.make_class_once,
            (_get_or_create_tracker_id(cls), *made),
            attributes,
            None,
            None,
            stand_ins.fill_class,
        )

    # --- functions and modules ------------------------------------------------------------------------------------------

    def _reduce_function(self, func: FunctionType) -> Any:
        if _should_pickle_by_reference(func) and _importable.is_importable(func.__module__):
            return NotImplemented
        entry = self.table.entry(func)
        if entry is not None and not self._is_call:
            return self._refer(entry) if self._blob is not None else self._refer_to_function(entry)
        place = None if _importable.is_registered(func.__module__) else _importable.place_of_function(func)
        if place is not None:
            return _importable.at_place, place
        if not self._is_call and self.table.is_senders and _importable.is_global(func):
            if self._blob is None:
                namespace = self.table.namespace(func.__globals__)
                self._write_variables(namespace, {func.__name__: func})  # type: ignore[arg-type]
                return self._refer(self.table.entry(func))  # type: ignore[arg-type]
            self._blob.enter(func, self.table.numbers)
        return self._reduce_function_by_value(func)

    def _refer_to_function(self, entry: Entry) -> _Reduction:
        """Refer to a function in an item, with what variables that it uses have been bound to since it was sent."""
        newer = [self._set(each.__globals__, rebuilt.used_globals(each)) for each in rebuilt.functions_used(entry.obj)]
        newer = [update for update in newer if update is not None] if self.table.is_senders else []
        return (stand_ins.first, (Reduced(self._refer(entry)), *newer)) if newer else self._refer(entry)

    def _reduce_function_by_value(self, func: FunctionType) -> _Reduction:
        if rebuilt.is_dispatcher(func):
            return rebuilt.reduce_dispatcher(func)
        self._cells.update(map(id, func.__closure__ or ()))
        attributes, names, closure, submodules = rebuilt.function_state(func)
        names["__defaults__"] = func.__defaults__ and tuple(map(self._stand_in, func.__defaults__))
        used = rebuilt.used_globals(func)
        modules = list(rebuilt.modules_used(func, [*used.values(), *closure]))
        state = (
            attributes,
            names,
            list(map(self._stand_in, closure)),
            self._set(func.__globals__, used),
            [self._set(vars(module), variables) for module, variables in modules],
            [submodule for submodule in submodules if not _importable.is_module_by_value(submodule)],
        )
        made = func.__code__, self._space(func.__globals__).variables, func.__closure__
        return rebuilt.make_function, made, state, None, None, stand_ins.set_function

    def _reduce_module(self, module: ModuleType) -> Any:
        """Reduce a module: with all that it has, where it cannot be imported and no function says what of it is used."""
        if not _importable.is_module_by_value(module):
            return NotImplemented
        entry = self.table.entry(module)
        if entry is not None:
            return self._refer(entry)
        if self._blob is None and self.table.is_senders and not self._is_call:
            self._write(lambda _: module)
            return self._refer(self.table.entry(module))  # type: ignore[arg-type]
        if self._blob is not None:
            self._blob.enter(module, self.table.numbers)
        variables = {name: value for name, value in vars(module).items() if name not in _OF_IMPORT}
        made, arguments = self._space(vars(module)).module.reduced
        return made, arguments, [self._set(vars(module), variables)], None, None, stand_ins.set_nothing

    def _space(self, variables: dict[str, Any]) -> _Space:
        """Return what stands for globals in this pickle."""
        space = self._spaces.get(id(variables))
        if space is None:
            space = self._spaces[id(variables)] = self._make_space(variables)
        return space

    def _make_space(self, variables: dict[str, Any]) -> _Space:
        namespace = self.table.namespace(variables)
        if namespace is not None and not self._is_call:
            arguments = self.table.map_id, namespace.number, namespace.header
            return _Space(
                Reduced((object_table.variables_of, arguments)),
                Reduced((object_table.module_of, arguments)),
                namespace,
            )
        name = variables.get("__name__")
        if not self.table.is_senders and _importable.is_of_importable_module(variables, name):
            module = Reduced((importlib.import_module, (name,)))
            return _Space(Reduced((vars, (module,))), module, None)
        header = object_table.header_of(variables)
        module = Reduced((object_table.make_module, (header,)))
        return _Space(Reduced((vars, (module,))), module, None)

    def _stand_in(self, value: object) -> object:
        """Return what is to be pickled for a variable, or a default."""
        if _importable.is_module_by_value(value):
            return self._space(vars(value)).module
        if self._blob is not None and type(value) in object_table.CONTAINERS:
            entry = self.table.entry(value)
            return value if entry is None else Reduced(self._refer(entry))
        return value

    def _set(self, variables: dict[str, Any], values: dict[str, Any]) -> Reduced | None:
        """Return what sets variables where it is loaded, but for those that are there."""
        space = self._space(variables)
        if space.namespace is None:
            return self._set_here(space, values)
        if not self.table.is_senders:
            return None  # the caller has them all
        missing = {name: value for name, value in values.items() if not space.namespace.is_sent(name)}
        if missing and self._blob is None:
            self._write_variables(space.namespace, missing)
            missing = {}
        if missing:
            self._enter_variables(space.namespace, missing)
        blobs = {space.namespace.sent[name][0] for name in values if name not in missing} - {None}
        if blobs:
            load = Reduced((object_table.load_blobs, (self.table.map_id, sorted(blobs))))  # type: ignore[type-var]
            return Reduced((stand_ins.first, (self._set_here(space, missing), load)))
        return self._set_here(space, missing)

    def _set_here(self, space: _Space, values: dict[str, Any]) -> Reduced | None:
        if not values:
            return None
        values = {name: self._stand_in(value) for name, value in values.items()}
        if space.namespace is None:
            return Reduced((stand_ins.set_variables, (space.variables, values)))
        assert self._blob is not None  # noqa: S101 - without one there is nothing left to be set
        blob = -1 if self._blob.number is None else self._blob.number
        return Reduced((object_table.set_variables, (self.table.map_id, space.variables, blob, values)))

    def _enter_variables(self, namespace: Namespace, values: dict[str, Any]) -> None:
        assert self._blob is not None  # noqa: S101 - as the caller has seen
        for name, value in values.items():
            self._blob.names.append((namespace, name, value))
            if object_table.has_number(value) and self.table.entry(value) is None:
                self._blob.enter(value, self.table.numbers)

    def _write_variables(self, namespace: Namespace, values: dict[str, Any]) -> None:
        self._write(lambda pickler: pickler._set(namespace.variables, values))


def _flat(table: ChainMap[Any, Any]) -> dict[Any, Any]:
    """Return the same as a plain dictionary, which pickle looks at without a call."""
    flat: dict[Any, Any] = {}
    for each in reversed(table.maps):
        flat.update(each)
    return flat


def _goes_by_name(obj: object) -> bool:
    """Tell whether an object is one that ``pickle`` would look for by its name, and never copy."""
    kind = type(obj)
    if kind.__module__ in rebuilt.TYPING or isinstance(obj, functools._lru_cache_wrapper):
        return True
    if _importable.is_importable(kind.__module__) or not object_table.reduces_itself(kind):
        return False
    return isinstance(obj.__reduce_ex__(5), str)


_ordinary: dict[int, type] = {id(kind): kind for kind in (CodeType, MethodType, property, classmethod, staticmethod)}
_here = (
    stand_ins.make_class,
    stand_ins.make_class_once,
    stand_ins.make_sentinel,
    stand_ins.fill_class,
    stand_ins.set_function,
    stand_ins.set_variables,
    stand_ins.first,
    stand_ins.set_nothing,
)
_of_table = ("known", "variables_of", "module_of", "make_module", "set_variables", "load_blobs")
_of_others = (_builtin_type, subimport, _make_empty_cell, rebuilt.make_function, by_value._from_file)
_ours = {id(each): each for each in (*_here, *(getattr(object_table, name) for name in _of_table), *_of_others)}
"""What most of these pickles are made of: nothing has to be found out about it."""
