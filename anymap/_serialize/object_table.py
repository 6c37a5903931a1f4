"""What both sides of a map know by number: the classes, functions and globals that travel by value, and their namespaces.

Each of them goes once, in a **blob**: the pickle of what was asked for with all that it needs. One blob is one pickle, so
what refers to each other in it does so after loading. Whatever is pickled later, items and results alike, refers to it by its
number: in the worker that is the one object that came, and in the caller's process the caller's own.

A **namespace** is the globals of one module for one map in a worker. All functions of that module that travel by value have it.
"""

from __future__ import annotations

import builtins
import copyreg
import io
import pickle
import sys
import threading
import uuid
import weakref
from itertools import count
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from anymap._host import forks
from anymap._serialize import importable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anymap._serialize.importable import Place

PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})
"""Exact types that load without running any code but pickle's own."""
CONTAINERS = frozenset({list, dict, set, bytearray})
_NO_INSTANCES = PLAIN | CONTAINERS | {tuple, frozenset, range, FunctionType, BuiltinFunctionType, type, ModuleType}
_OF_MODULE = ("__name__", "__package__", "__path__", "__file__")
"""What relative imports and messages need of a namespace."""

Route = Literal["file", "fork", "engine", "value", "home"]
"""How what a reference stands for gets to a map's workers: by a file of this host, as part of a fork, by the engine's
own means, by value; back to where it came from."""

births = count()


class Entry(NamedTuple):
    """An object that has a number."""

    number: int
    blob: int | None
    """Where it is; ``None``: with the map's function, which is loaded before all else."""
    obj: Any
    state: Any
    """What it was like when it got its number, see :func:`plain_state`."""

    def is_unchanged(self) -> bool:
        """Tell whether it may be referred to as part of an item or a result, which travel as they are now."""
        return self.state is not None and self.state == plain_state(self.obj)


class Namespace:
    """The globals of a module, or of whatever else functions have for their globals."""

    def __init__(self, number: int, variables: dict[str, Any]) -> None:
        self.number = number
        self.variables = variables
        self.sent: dict[str, tuple[int | None, Any]] = {}
        """In which blob each variable has gone, and with which value."""
        self.header = header_of(variables)

    def is_sent(self, name: str) -> bool:
        return name in self.sent and self.sent[name][1] is self.variables.get(name)


def header_of(variables: dict[str, Any]) -> dict[str, Any]:
    return {name: variables[name] for name in _OF_MODULE if name in variables}


def make_module(header: dict[str, Any]) -> ModuleType:
    """Make a module with no more than that."""
    module = ModuleType(str(header.get("__name__") or ""))
    vars(module).update(header, __builtins__=builtins)
    return module


class Blob:
    """What goes in one blob, while it is written."""

    def __init__(self, number: int | None) -> None:
        self.number = number
        self.clear()

    def clear(self) -> None:
        self.objects: dict[int, tuple[int, Any]] = {}
        """Those that get a number, by their ids, with their numbers."""
        self.names: list[tuple[Namespace, str, Any]] = []
        """Variables that go with it, and their values."""

    def enter(self, obj: object, numbers: Iterator[int]) -> int:
        """Give an object a number, if it has none here."""
        if id(obj) not in self.objects:
            self.objects[id(obj)] = next(numbers), obj
        return self.objects[id(obj)][0]

    def numbered(self) -> list[tuple[int, Any]]:
        return list(self.objects.values())


class ObjectTable:
    """The objects that one map sends by value, numbered. One side makes the numbers, the other looks them up."""

    def __init__(self, map_id: str, *, sender: bool, route: Route = "home", outlives_maps: bool = False) -> None:
        self.map_id = map_id
        self.route: Route = route
        self.outlives_maps = outlives_maps
        self.serial_number = next(births)
        """Forks made for this map have all references that are older."""
        self.is_senders = sender
        self.lock = threading.RLock()
        self.blobs: dict[int, bytes] = {}
        """By their numbers. Those below 0 say in whose place what has a number is to be another object: see :meth:`replace`."""
        self.left_out: dict[Any, None] = {}
        """The references in its blobs that the engine is to carry."""
        self.instances: set[int] = set()
        """The ids of objects that may be known, or are to be known, by a number; but for classes, functions and modules."""
        self._places: dict[int, tuple[Namespace, str]] = {}
        self._entries: dict[int, Entry] = {}
        self._objects: dict[int, Any] = {}
        self._namespaces: dict[int, Namespace] = {}
        self._modules: dict[int, ModuleType] = {}
        self._loaded: set[int] = set()
        self._found: dict[int, tuple[type, Place | None]] = {}
        self._outliving: list[ObjectTable] = []
        self._inherits = False
        self.numbers = count()
        self._blob_numbers = count()

    # --- the side that makes the numbers --------------------------------------------------------------------------------

    def new_blob(self) -> Blob:
        return Blob(next(self._blob_numbers))

    def entry(self, obj: object) -> Entry | None:
        """Return what is known of an object; ``None`` where it has no number."""
        entry = self._entries.get(id(obj))
        return entry if entry is not None and entry.obj is obj else None

    def namespace(self, variables: dict[str, Any]) -> Namespace | None:
        """Return the namespace of these globals; ``None`` where a receiver does not know it."""
        known = self._namespaces.get(id(variables))
        if known is None and self.is_senders:
            known = self._namespaces[id(variables)] = Namespace(len(self._namespaces), variables)
            for name, value in list(variables.items()):
                if type(value) not in _NO_INSTANCES and _is_instance(value):
                    self.instances.add(id(value))
                    self._places[id(value)] = known, name
        return known

    def place(self, obj: object) -> tuple[Namespace, str] | None:
        """Return which variable of which namespace an object is the value of."""
        found = self._places.get(id(obj))
        return found if found is not None and found[0].variables.get(found[1]) is obj else None

    def place_of_class(self, cls: type) -> Place | None:
        """Return where workers find a class; looked for once in a map, as it is done everywhere."""
        if id(cls) not in self._found:
            self._found[id(cls)] = cls, importable.place_of_class(cls)
        return self._found[id(cls)][1]

    def commit(self, blob: Blob, data: bytes | None = None) -> None:
        """Take in what a blob holds, now that it is written; ``data`` is its pickle, where it is to travel with the tasks."""
        for number, obj in blob.objects.values():
            self._add(Entry(number, blob.number, obj, plain_state(obj)))
        for namespace, name, value in blob.names:
            namespace.sent[name] = blob.number, value
        if blob.number is not None and data is not None:
            self.blobs[blob.number] = data
        self._replace(list(blob.objects.values()))

    def _add(self, entry: Entry) -> None:
        self._entries[id(entry.obj)] = entry
        self._objects[entry.number] = entry.obj
        if _is_instance(entry.obj):
            self.instances.add(id(entry.obj))

    # --- what outlives the map ------------------------------------------------------------------------------------------

    def defer_to(self, outliving: ObjectTable) -> None:
        """Have what ``elder`` has sent, or sends, be the same objects in the worker: there they outlive this map."""
        if outliving is not self and outliving not in self._outliving:
            self._outliving.append(outliving)
        self._replace((entry.number, entry.obj) for entry in list(self._entries.values()))

    def leave_to_forks(self) -> None:
        """Have what a fork finds by its name be that: what else it has inherited is made of it."""
        if not self._inherits:
            self._inherits = True
            self._replace((entry.number, entry.obj) for entry in list(self._entries.values()))

    def _replace(self, numbered: Iterable[tuple[int, Any]]) -> None:
        if not self._outliving and not self._inherits:
            return
        for number, obj in numbered:
            if isinstance(obj, type) or is_sentinel(obj):
                other = self._other(obj)
                if other is not None:
                    self.blobs[-1 - number] = pickle.dumps(Reduced(other), 5)

    def _other(self, obj: Any) -> tuple[Any, ...] | None:
        place = self._place_in_fork(obj) if self._inherits else None
        if place is not None:
            return inherited, place
        for outliving in self._outliving:
            entry = outliving.entry(obj)
            if entry is not None:
                return adopted, (outliving.map_id, entry.blob, entry.number, dict(outliving.blobs))
        return None

    def _place_in_fork(self, obj: Any) -> tuple[str, str] | None:
        if isinstance(obj, type):
            place = obj.__module__, obj.__qualname__
        elif (found := self.place(obj)) is not None:
            place = str(found[0].header.get("__name__")), found[1]
        else:
            return None
        return place if importable.by_name(*place) is obj else None

    # --- the side that looks them up ------------------------------------------------------------------------------------

    def find(self, blob: int | None, number: int) -> Any:
        if number not in self._objects and blob is not None:
            self.load(blob)
        return self._objects[number]

    def find_known(self, number: int) -> Any:
        """Return what is to have a number, if that is here before it has come; else ``None``."""
        if number in self._objects:
            return self._objects[number]
        data = self.blobs.get(-1 - number)
        return None if data is None else pickle.loads(data)

    def set_variables(self, variables: dict[str, Any], blob: int, values: dict[str, Any]) -> None:
        """Give variables the values that a blob has for them, unless those of a later one are there."""
        if not self.is_senders:
            sent = self._namespaces[id(variables)].sent
            for name, value in values.items():
                if name not in sent or (sent[name][0] or 0) <= blob:
                    variables[name], sent[name] = value, (blob, None)

    def load(self, number: int) -> None:
        """Load a blob, the first time it is needed."""
        with self.lock:
            if number not in self._loaded and not self.is_senders:
                self.receive(number, pickle.Unpickler(io.BytesIO(self.blobs[number])))
                self._loaded.add(number)

    def receive(self, number: int | None, unpickler: pickle.Unpickler) -> Any:
        """Load what was asked for, and with it all that has a number."""
        asked_for = unpickler.load()
        if not self.is_senders:
            for known, obj in unpickler.load():
                self._add(Entry(known, number, obj, plain_state(obj)))
        return asked_for

    def module(self, number: int, header: dict[str, Any]) -> ModuleType:
        """Return the module whose globals a namespace is, made here if need be."""
        with self.lock:
            module = self._modules.get(number)
            if module is None:
                module = self._modules[number] = make_module(header)
                self._namespaces[id(vars(module))] = Namespace(number, vars(module))
        return module

    def variables(self, number: int, header: dict[str, Any]) -> dict[str, Any]:
        """Return the globals of a namespace: where the numbers are made, those that it was made of."""
        if self.is_senders:
            return next(each.variables for each in self._namespaces.values() if each.number == number)
        return vars(self.module(number, header))


def _is_instance(value: object) -> bool:
    """Tell whether an object is neither a plain value nor what defines others."""
    kind = type(value)
    return kind not in _NO_INSTANCES and not issubclass(kind, (type, ModuleType))


def has_number(value: object) -> bool:
    """Tell whether a variable's value is to be known by a number: there may be other ways to get at it."""
    kind = type(value)
    return kind in CONTAINERS or _is_instance(value)


def plain_state(obj: object) -> tuple[Any, ...] | None:
    """Return a copy of all that an object holds, if those are plain values; ``None`` for all others."""
    kind: Any = type(obj)
    if kind is object:
        return (), []
    if not _is_instance(obj) or reduces_itself(kind) or kind.__getstate__ is not _GETSTATE:
        return None
    try:
        reduced: Any = obj.__reduce_ex__(5)
        make, (_, *arguments), state, *items = reduced
    except Exception:  # noqa: BLE001 - it cannot be pickled, and to pickle it says why
        return None
    attributes = [each for each in (state if isinstance(state, tuple) else (state,)) if each]
    if make is not copyreg.__newobj__ or any(item is not None for item in items):  # type: ignore[attr-defined]
        return None
    if not all(type(each) is dict and PLAIN.issuperset(map(type, each.values())) for each in attributes):
        return None
    return (tuple(arguments), [dict(each) for each in attributes]) if PLAIN.issuperset(map(type, arguments)) else None


_GETSTATE: Any = object.__getstate__


def reduces_itself(kind: Any) -> bool:
    """Tell whether a class says how to pickle its instances."""
    return kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not object.__reduce__


def is_sentinel(obj: object) -> bool:
    """Tell whether there is nothing about an object but that it is this one."""
    return plain_state(obj) == ((), [])


class Reduced:
    """Pickles to whatever loads as the call that it was made of."""

    def __init__(self, reduced: tuple[Any, ...]) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


# --- the tables of this process -------------------------------------------------------------------------------------------

_tables: weakref.WeakValueDictionary[str, ObjectTable] = weakref.WeakValueDictionary()
_adopted: dict[str, ObjectTable] = {}
"""The tables of what outlives a map, by their ids; one for each process that has sent such things to this one."""

_origin = uuid.uuid4().hex
"""This process, among all that may send to one another."""
_numbers = count()
is_fork = False


def _note_fork() -> None:
    global _origin, is_fork
    _origin, is_fork = uuid.uuid4().hex, True
    # A fork is a worker as any other: what a map sends is a copy, and the map's own table would give it what it inherited.
    for table in list(_tables.values()):
        table.lock = threading.RLock()
        if not table.outlives_maps:
            del _tables[table.map_id]


forks.in_child(_note_fork)


def is_from_here(map_id: str) -> bool:
    """Tell whether a map is of this very process."""
    return map_id.startswith(_origin)


def sender_table(route: Route = "value", *, outlives_maps: bool = False) -> ObjectTable:
    """Return the table of a new map, known by its id for as long as there is a reference to it."""
    table = ObjectTable(f"{_origin}-{next(_numbers)}", sender=True, route=route, outlives_maps=outlives_maps)
    _tables[table.map_id] = table
    return table


before_a_map: list[Callable[[], object]] = []
"""What modules of this package let go of in a worker before it loads another map."""


def forget_before_a_map() -> None:
    """Let go of what no map needs any more."""
    for forget in before_a_map:
        forget()


def receiver_table(map_id: str) -> ObjectTable:
    """Return the table of a map that another process sends; the sender's own where both are one process."""
    table = _tables.get(map_id)
    if table is None:
        table = _tables[map_id] = ObjectTable(map_id, sender=False)
    return table


def table_of(map_id: str) -> ObjectTable:
    return _tables[map_id]


def find_table(map_id: str) -> ObjectTable | None:
    return _tables.get(map_id)


def adopted_table(map_id: str, blobs: dict[int, bytes]) -> ObjectTable:
    """Return the table of what outlives a map and came from another process; the sender's own where both are one."""
    table = _tables.get(map_id)
    if table is None:
        table = _adopted[map_id] = _tables[map_id] = ObjectTable(map_id, sender=False, outlives_maps=True)
    table.blobs.update(blobs)
    return table


def adopted_entry(obj: object) -> tuple[ObjectTable, Entry] | None:
    """Return what is known of an object that came with what outlives maps."""
    found = ((table, table.entry(obj)) for table in list(_adopted.values()))
    return next(((table, entry) for table, entry in found if entry is not None), None)


# --- what stands in pickles -----------------------------------------------------------------------------------------------


def known(map_id: str, blob: int | None, number: int) -> Any:
    """Stand in a pickle for an object that both sides know by its number."""
    return _tables[map_id].find(blob, number)


def adopted(map_id: str, blob: int | None, number: int, blobs: dict[int, bytes]) -> Any:
    """Stand in a pickle for an object that outlives the map which it is sent with."""
    return adopted_table(map_id, blobs).find(blob, number)


def inherited(module: str, path: str) -> Any:
    """Stand in a pickle for what a fork and its parent both find by its name."""
    return importable.by_name(module, path)


def module_of(map_id: str, number: int, header: dict[str, Any]) -> ModuleType:
    """Stand in a pickle for a module that no worker can import."""
    table = _tables[map_id]
    if table.is_senders:
        name: str = header["__name__"]
        return sys.modules[name]
    return table.module(number, header)


def variables_of(map_id: str, number: int, header: dict[str, Any]) -> dict[str, Any]:
    """Stand in a pickle for the globals of functions."""
    return _tables[map_id].variables(number, header)


def set_variables(map_id: str, variables: dict[str, Any], blob: int, values: dict[str, Any]) -> None:
    """Give variables of a namespace their values."""
    _tables[map_id].set_variables(variables, blob, values)


def load_blobs(map_id: str, numbers: Iterable[int]) -> None:
    """Have the variables there that these blobs hold."""
    for number in numbers:
        _tables[map_id].load(number)
