"""Objects that are shipped once, not once a map: by a file in memory on this host, by the cluster's own store elsewhere.

A handle travels as a token. A process that loads it gets its own handle, and that loads the object when it is first
asked for it: once a process, from a file that all of them map. What the object is made of out of band (arrays) is not
copied; the pages of the file are private to the process that writes to them.
"""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from collections import OrderedDict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from anymap._errors import AnymapError, NotPicklable
from anymap._host import forks, spill
from anymap._serialize import object_table, packing
from anymap._serialize.packing import SpilledPayload
from anymap._serialize.pickler import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from types import TracebackType
    from typing import Self

    from anymap._serialize.object_table import ObjectTable, Route
    from anymap._serialize.pickler import Pickler

T = TypeVar("T")

_KEPT = 8
"""So many objects that came from elsewhere are kept loaded in a process."""
_INSIDE = 8 * 1024
"""An object of fewer bytes goes with its token."""


class Packed(NamedTuple):
    """What the object can be loaded from in another process."""

    payload: Any
    """A payload, spilled or not. Where an engine carries it, its data are the list of its data and buffers."""
    table: str
    classes: dict[int, bytes]
    """Those of the table, by value."""


class Shared(Reference, Generic[T]):
    """A handle of an object that is shipped once; :func:`share` makes it."""

    _object: T
    """Only where it was made."""

    def __init__(self, key: str, source: Packed | None) -> None:
        super().__init__()
        self.key = key
        self.lock = threading.RLock()
        self.copies: MutableMapping[Any, Any] = weakref.WeakKeyDictionary()
        """What an engine holds of it, by its client. Let go when the handle is closed."""
        self._source = source
        self._mine = False
        self._closed = False
        self._written: Packed | None = None
        self._fresh: Packed | None = None
        self._file: weakref.finalize[Any, Any] | None = None

    def get(self) -> T:
        """Return the object.

        Where the handle was made that is the object itself; elsewhere a copy, which is loaded once by each process and
        is the same for all its threads, items and maps. Take it for read-only: what is written to it reaches no other process,
        the other threads, or everybody, as the backend has it.

        Raises:
            AnymapError: the handle was closed, or collected, where it was made.
        """
        if self._mine:
            return self._object
        if self._closed:
            raise self._is_gone()
        loaded = _loaded.get(self.key)
        if loaded is None:
            with self.lock:
                loaded = _loaded.get(self.key) or self._load()
        else:
            with suppress(KeyError):  # another thread has just put it out
                _loaded.move_to_end(self.key)
        value: T = loaded.value
        return value

    def close(self) -> None:
        """Let go of all copies. Workers that have the object loaded keep it until they begin another map.

        Done by itself when the handle is collected, and at exit.
        """
        with self.lock:
            self._closed = True
            self._mine = False
            self.__dict__.pop("_object", None)
            self._fresh = None
            self.copies.clear()
            _loaded.pop(self.key, None)
            if self._file is not None:
                self._file()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._mine:
            return f"<Shared {type(self._object).__qualname__}>"
        return "<Shared, closed>" if self._closed else "<Shared, of another process>"

    @classmethod
    def _made_of(cls, obj: T) -> Shared[T]:
        self = cls(uuid.uuid4().hex, None)
        self._object = obj
        self._mine = True
        with _lock:
            _handles[self.key] = self
        return self

    # --- leaving this process -------------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        """By value: where it goes is not known."""
        packed = self._pack("value")
        return received, (self.key, packed._replace(payload=packing.spill(packed.payload, None)))

    def reduce_for(self, pickler: Pickler) -> tuple[Any, ...]:
        table = pickler.table
        if self._closed:
            raise self._is_gone()
        if table.route == "home" and not self._mine:
            # It came from there, or through there.
            source = self._source
            return received, (self.key, source if source and isinstance(source.payload, SpilledPayload) else None)
        if table.route == "fork" and self.serial_number < table.serial_number:
            table.leave_to_forks()
            return received, (self.key, None)
        if table.route == "engine":
            pickler.left_out[self] = None
            if not self.copies:
                self.for_engine()
            packed, outliving = None, _table("engine").map_id
        else:
            packed = self._in_file() if table.route in {"file", "fork"} else self._pack("value")
            outliving = packed.table
        if (known := object_table.find_table(outliving)) is not None:
            table.defer_to(known)
        return received, (self.key, packed)

    def for_engine(self) -> Packed:
        """Return what an engine has to carry. The same until that is :meth:`carried`."""
        with self.lock:
            if self._fresh is None:
                self._fresh = self._pack("engine")
            return self._fresh

    def carried(self, by: object, how: object) -> None:
        """Remember how ``by`` can have the object again, and let go of what it was packed to."""
        with self.lock:
            self.copies[by] = how
            self._fresh = None

    def _in_file(self) -> Packed:
        """Return where the object is in a file; write it there if it is not, or not any more."""
        with self.lock:
            for known in (self._written, self._source):
                if known is not None and _is_for_this_host(known):
                    return known
            packed, folder = self._pack("file"), spill.make_folder()
            packed = packed._replace(payload=packing.spill(packed.payload, folder, least=_INSIDE))
            self._written = packed
            if isinstance(packed.payload, SpilledPayload):
                self._file = weakref.finalize(self, _remove_folder, folder, os.getpid())
                self._file.atexit = False  # the folder's home goes then
            else:
                spill.remove_folder(folder)
            return packed

    def _pack(self, route: Route) -> Packed:
        value, table = self.get(), _table(route)
        payload, refused = packing.pack([value], table, to_file=route == "file")
        if refused:
            message = f"the shared {type(value).__qualname__} cannot be sent to other processes: {refused[0]}"
            raise NotPicklable(message) from refused[0].__cause__
        return Packed(payload, table.map_id, dict(table.blobs))

    def _is_gone(self) -> AnymapError:
        return AnymapError("this shared object was closed, or collected, by the process that made it")

    # --- having come to another one -------------------------------------------------------------------------------

    def _load(self) -> _Loaded:
        source = self._source
        if source is None:
            raise self._is_gone()
        object_table.adopted_table(source.table, source.classes)
        try:
            value = packing.unpack(source.payload, keep=True)[0]
        except FileNotFoundError:
            raise self._is_gone() from None
        forget_closed()
        loaded = _loaded[self.key] = _Loaded(value, getattr(source.payload, "path", None))
        while len(_loaded) > _KEPT:
            _loaded.popitem(last=False)
        return loaded


class _Loaded(NamedTuple):
    value: Any
    path: str | None


def share(obj: T) -> Shared[T]:
    """Return a handle of ``obj`` that can be given to any number of maps, and ships it once.

    Let the function use it, or pass it as an argument, and call its ``get()`` there. On this host the object is written
    to a file in memory when it is first needed, and each worker maps that: arrays are there without a copy. On a dask
    cluster each worker fetches it once. In threads nothing is copied. The file goes when the handle is closed (it is a
    context manager) or collected.

    What cannot be pickled can be shared where nothing is: a map that has to send it raises :class:`NotPicklable`.

    >>> from anymap import pmap, share
    >>> with share({"a": 1, "b": 2}) as table:
    ...     pmap(lambda key: table.get()[key], ["b", "a"], backend="serial")
    [2, 1]
    """
    return Shared._made_of(obj)


_handles: weakref.WeakValueDictionary[str, Shared[Any]] = weakref.WeakValueDictionary()
"""Those of this process, made here or received."""
_loaded: OrderedDict[str, _Loaded] = OrderedDict()
"""The objects that came from elsewhere, by the keys of their handles, the last one used at the end."""
_lock = forks.Lock()
_tables: dict[Route, ObjectTable] = {}
"""The classes that this process has sent with what it shares. They outlive a map in the worker as their objects do."""


def received(key: str, source: Packed | None) -> Shared[Any]:
    """Stand in a pickle for a handle: there is one for each object in a process."""
    with _lock:
        handle = _handles.get(key)
        if handle is None:
            handle = _handles[key] = Shared(key, source)
        elif source is not None:
            handle._source = source
    return handle


@contextmanager
def present(carried: dict[str, Packed]) -> Iterator[None]:
    """Have the handles find what an engine has carried here; it is the parts of each payload, in one list."""
    handles = [received(key, _filled(packed)) for key, packed in carried.items()]
    yield
    # Until now, though the task itself may have dropped the last of them.
    handles.clear()


def _filled(packed: Packed) -> Packed:
    data, *buffers = packed.payload.data
    return packed._replace(payload=packed.payload._replace(data=data, buffers=buffers))


def forget_closed() -> None:
    """Let go of what was shared by a file that is not there any more: its memory is free only then."""
    for key, loaded in list(_loaded.items()):
        if loaded.path is not None and not os.path.exists(loaded.path):
            _loaded.pop(key, None)


def _table(route: Route) -> ObjectTable:
    with _lock:
        if route not in _tables:
            _tables[route] = object_table.sender_table(route, outlives_maps=True)
        return _tables[route]


def _is_for_this_host(packed: Packed) -> bool:
    """Tell whether other processes here can load it as it is, without a copy of their own of much."""
    if isinstance(packed.payload, SpilledPayload):
        return os.path.exists(packed.payload.path)
    return bool(packed.payload.nbytes() < _INSIDE)


def _remove_folder(folder: str, pid: int) -> None:
    # A forked child has the handle too, and the file is not its own.
    if os.getpid() == pid:
        spill.remove_folder(folder)


def _renew_locks() -> None:
    # The threads that held them, if some did, are not there any more.
    for handle in list(_handles.values()):
        handle.lock = threading.RLock()


forks.in_child(_renew_locks)


object_table.before_a_map.append(forget_closed)
