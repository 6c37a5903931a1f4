"""Functions, arguments and results to bytes and back.

A *parcel* is what travels: the values of one chunk, or one function. Values that cannot run code when they are
loaded (numbers, text, bytes) go in one pickle. All others are pickled one by one, so that one that cannot be loaded
is that item's error and nobody else's, and a worker that dies while loading died on a known item.

Large buffers (pickle protocol 5) stay out of the pickle. Where both sides share a host they are written to a file
once and mapped by the reader, without a copy.

Classes that cannot be imported elsewhere, those of ``__main__`` above all, travel by value once per map. A result
that is an instance of one refers to it by number, so it comes back as an instance of the caller's own class, and
that class is not touched: cloudpickle alone would load the worker's copy of its attributes over it.
"""

from __future__ import annotations

import errno
import functools
import io
import mmap
import os
import pickle
import reprlib
import sys
import uuid
import weakref
from contextlib import suppress
from itertools import accumulate, chain, count, pairwise
from operator import attrgetter
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cloudpickle.cloudpickle import (
    _DYNAMIC_CLASS_TRACKER_BY_ID,
    _dynamic_class_reduce,
    _should_pickle_by_reference,
)

from anymap import _by_value, _forks, _spool
from anymap._errors import NotPicklable

if TYPE_CHECKING:
    from collections import ChainMap
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec

_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})
"""Exact types that load without running any code but pickle's own."""
_PLAIN_OR_TUPLE = _PLAIN | {tuple}
_OUT_OF_BAND = 64 * 1024
"""A buffer of fewer bytes is cheaper inside the pickle."""
_SPILL = 64 * 1024
"""A parcel of fewer bytes travels through the pipe; more would block a writer whose reader is busy."""
_LARGE_TOGETHER = 1024 * 1024
"""Plain values of more bytes go one by one, too: who has no memory for all of them may have it for some."""
_COPIES, _BESIDES = 3, 1024 * 1024
"""To send a parcel through a pipe takes memory for so many copies of it, and so many bytes besides."""
_DEEPEST_FAULT = 20
"""What cannot be pickled because it is nested too deeply has its fault nowhere."""
_PIECE = 32 * 1024
"""Pieces of fewer bytes are quicker put together than written one by one."""
_ALIGNMENT = 64
"""Arrays that start on a cache line keep the speed of freshly allocated ones."""


class Parcel(NamedTuple):
    """Packed values. ``ends`` and ``counts`` say where each item ends in ``data`` and how many buffers it has."""

    data: Any
    """Bytes; or a list of pieces, where to put them together would be to copy much, see :meth:`whole`."""
    ends: tuple[int, ...] | None = None
    """``None``: ``data`` is one pickle of the whole list."""
    buffers: Sequence[Any] = ()
    counts: tuple[int, ...] = ()
    left_out: tuple[Any, ...] = ()
    """The references whose values the engine is to carry, not the parcel."""

    def nbytes(self) -> int:
        return self.size() + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def size(self) -> int:
        """Return how many bytes ``data`` has."""
        return sum(map(len, self.pieces()))

    def pieces(self) -> list[Any]:
        return self.data if isinstance(self.data, list) else [self.data]

    def whole(self) -> Parcel:
        """Return the same with ``data`` in one."""
        return self._replace(data=b"".join(self.data)) if isinstance(self.data, list) else self


_NONE = pickle.dumps(None, 5)
_NOTHING = Parcel(_NONE, (len(_NONE),))
"""Stands for a value that cannot be packed."""


class SpilledParcel(NamedTuple):
    """A parcel in a file: the pickles first, then each buffer at an aligned place."""

    path: str
    size: int
    places: tuple[tuple[int, int], ...]
    ends: tuple[int, ...] | None
    counts: tuple[int, ...]

    def nbytes(self) -> int:
        return self.size + sum(size for _, size in self.places)


Route = Literal["file", "fork", "engine", "value", "home"]
"""How what a reference stands for gets to a map's workers: by a file of this host, as part of a fork, by the engine's
own means, by value; back to where it came from."""

_births = count()


class Reference:
    """What a map does not pickle by its parts: it decides itself how it travels."""

    def __init__(self) -> None:
        self.born = next(_births)

    def reduce_for(self, pickler: _Pickler) -> tuple[Any, ...]:
        """Return what ``__reduce__`` would, for the map whose pickler this is."""
        raise NotImplementedError


class ClassTable:
    """The classes that one map sends by value, numbered. One side makes the numbers, the other looks them up."""

    def __init__(self, map_id: str, *, sender: bool, route: Route = "home", outlives_maps: bool = False) -> None:
        self.map_id = map_id
        self.route: Route = route
        self.born = next(_births)
        """Forks made for this map have all references that are older."""
        self.blobs: dict[int, bytes] = {}
        self.left_out: dict[Reference, None] = {}
        """The references in its classes that the engine is to carry."""
        self.is_senders = sender
        self._outlives_maps = outlives_maps
        self._elders: list[ClassTable] = []
        self._inherited = False
        self._numbers: dict[type, int] = {}
        self._classes: dict[int, type] = {}

    def tracker_id(self, number: int) -> str:
        return f"{self.map_id}.{number}"

    def reduce(self, cls: type) -> tuple[Any, ...] | None:
        """Return how to pickle ``cls`` by its number; ``None`` where it has none and gets none."""
        if cls not in self._numbers:
            if not self.is_senders:
                return _origins.get(cls) or _inherited(cls)
            self._enter(cls)
        return received_class, (self.map_id, self._numbers[cls])

    def find(self, number: int) -> type:
        # A class whose methods mention it is asked for while it is being loaded: its skeleton is tracked by then.
        found = self._classes.get(number) or _DYNAMIC_CLASS_TRACKER_BY_ID.get(self.tracker_id(number))
        return found if found is not None else self._load(number)

    def defer_to(self, elder: ClassTable) -> None:
        """Have the classes that ``elder`` has sent, or sends, be its classes in the worker: there they outlive this map."""
        if elder is self:
            return
        if elder not in self._elders:
            self._elders.append(elder)
        for cls, number in list(self._numbers.items()):
            self._ask_elders(cls, number)

    def leave_to_forks(self) -> None:
        """Have the classes that a fork finds by their names be those: what else it has inherited is made of them."""
        if not self._inherited:
            self._inherited = True
            for cls, number in list(self._numbers.items()):
                self._leave_to_forks(cls, number)

    def _leave_to_forks(self, cls: type, number: int) -> None:
        if _by_name(cls.__module__, cls.__qualname__) is cls:
            found = inherited_class, (cls.__module__, cls.__qualname__)
            self.blobs[number] = pickle.dumps(_Reduced(found), 5)

    def _ask_elders(self, cls: type, number: int) -> bool:
        """Have a class be that of an elder who knows it; return whether one does."""
        elder = next((elder for elder in self._elders if cls in elder._numbers), None)
        if elder is not None:
            found = adopted_class, (elder.map_id, elder._numbers[cls], dict(elder.blobs))
            self.blobs[number] = pickle.dumps(_Reduced(found), 5)
        return elder is not None

    def _enter(self, cls: type) -> None:
        number = self._numbers[cls] = len(self._numbers)
        self._classes[number] = cls
        if self._ask_elders(cls, number):
            return
        file = io.BytesIO()
        pickler = _Pickler(file, self, by_value=cls)
        pickler.dump(cls)
        self.left_out.update(pickler.left_out)
        self.blobs[number] = file.getvalue()
        if self._inherited:
            self._leave_to_forks(cls, number)

    def _load(self, number: int) -> type:
        cls: type = pickle.loads(self.blobs[number])
        self._classes[number] = cls
        self._numbers[cls] = number
        if self._outlives_maps:
            _origins[cls] = received_class, (self.map_id, number)
        return cls


class _Reduced:
    """Pickles to whatever loads as the call that it was made of."""

    def __init__(self, reduced: tuple[Any, ...]) -> None:
        self._reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


_tables: weakref.WeakValueDictionary[str, ClassTable] = weakref.WeakValueDictionary()


_origins: weakref.WeakKeyDictionary[type, tuple[Any, ...]] = weakref.WeakKeyDictionary()
"""How to pickle a class that came with what outlives a map: whoever sent it knows it by that."""
_adopted: dict[str, ClassTable] = {}
"""The tables of what outlives a map, by their ids; one for each process that has sent such things to this one."""


_origin = uuid.uuid4().hex
"""This process, among all that may send to one another."""
_numbers = count()


def _become_another() -> None:
    global _origin  # noqa: PLW0603 - a fact about the process
    _origin = uuid.uuid4().hex


_forks.in_child(_become_another)


def is_from_here(map_id: str) -> bool:
    """Tell whether a map is of this very process."""
    return map_id.startswith(_origin)


def sender_table(route: Route = "value") -> ClassTable:
    """Return the table of a new map, known by its id for as long as somebody holds it."""
    table = ClassTable(f"{_origin}-{next(_numbers)}", sender=True, route=route)
    _tables[table.map_id] = table
    return table


def adopted_table(map_id: str, blobs: dict[int, bytes]) -> ClassTable:
    """Return the table of what outlives a map and came from another process; the sender's own where both are one."""
    table = _tables.get(map_id)
    if table is None:
        table = _adopted[map_id] = _tables[map_id] = ClassTable(map_id, sender=False, outlives_maps=True)
    table.blobs.update(blobs)
    return table


def adopted_class(map_id: str, number: int, blobs: dict[int, bytes]) -> type:
    """Stand in a pickle for a class that outlives the map which it is sent with."""
    return adopted_table(map_id, blobs).find(number)


_is_fork = False


def _note_fork() -> None:
    global _is_fork  # noqa: PLW0603 - a fact about the process
    _is_fork = True


_forks.in_child(_note_fork)


def _by_name(module: str, name: str) -> Any:
    try:
        return attrgetter(name)(sys.modules[module])
    except (AttributeError, KeyError):
        return None


def _inherited(cls: type) -> tuple[Any, ...] | None:
    """Return how a fork pickles a class that it has from its parent; ``None`` if it has not."""
    if _is_fork and _by_name(cls.__module__, cls.__qualname__) is cls:
        return inherited_class, (cls.__module__, cls.__qualname__)
    return None


def inherited_class(module: str, name: str) -> type:
    """Stand in a pickle for a class that a fork and its parent both find by its name."""
    found: type = _by_name(module, name)
    return found


def receiver_table(map_id: str) -> ClassTable:
    """Return the table of a map that another process sends; the sender's own where both are one process."""
    table = _tables.get(map_id)
    if table is None:
        table = _tables[map_id] = ClassTable(map_id, sender=False)
    return table


def received_class(map_id: str, number: int) -> type:
    """Stand in a pickle for a class that both sides know by its number."""
    return _tables[map_id].find(number)


class _Pickler(_by_value.Pickler):
    """cloudpickle, with a map's classes by number."""

    def __init__(
        self,
        file: io.BytesIO | _Pieces,
        classes: ClassTable,
        by_value: type | None = None,
        buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None,
    ) -> None:
        self.dispatch_table = _flat(_by_value.Pickler.dispatch_table)
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.table = classes
        self.left_out: dict[Reference, None] = {}
        self._by_value = by_value
        # To find out takes microseconds, and the items of a parcel are mostly of the same kind. By their ids: a metaclass
        # may say what it likes about equality.
        self._ordinary: dict[int, type] = {}
        """Types whose instances go as ``pickle`` has them go."""
        self._named: dict[int, Any] = {}
        """Classes and functions that go by their names."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if id(kind) in self._ordinary or id(obj) in self._named:
            return NotImplemented
        reduced = self._reduce(obj)
        if reduced is NotImplemented:
            if isinstance(obj, (type, FunctionType, functools._lru_cache_wrapper)):
                self._named[id(obj)] = obj
            else:
                self._ordinary[id(kind)] = kind
        return reduced

    def _reduce(self, obj: Any) -> Any:
        if isinstance(obj, Reference):
            return obj.reduce_for(self)
        if isinstance(obj, functools._lru_cache_wrapper) and not _is_found_by_name(obj):
            return _cache, (obj.__wrapped__, obj.cache_parameters())
        if isinstance(obj, functools.cached_property):
            return _cached_property, (obj.func, obj.attrname)
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented and isinstance(obj, (type, FunctionType)) and not _importable(obj.__module__):
            reduced = _dynamic_class_reduce(obj) if isinstance(obj, type) else self._dynamic_function_reduce(obj)
        # Only a class that goes by value is reduced to six parts, its state setter the last.
        if reduced is NotImplemented or not isinstance(obj, type) or len(reduced) != 6:
            return reduced
        if obj is self._by_value:
            return self._tracked(obj, reduced)
        return self.table.reduce(obj) or reduced

    def _tracked(self, cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
        make, arguments, *rest = reduced
        if (slots := vars(cls).get("__slots__")) and isinstance(arguments[3], dict):
            # cloudpickle sets them when the class has been made, too late to keep its instances from having a dictionary.
            arguments = (*arguments[:3], {**arguments[3], "__slots__": slots}, *arguments[4:])
        number = self.table.reduce(cls)[1][1]  # type: ignore[index]
        return make, (*arguments[:-2], self.table.tracker_id(number), arguments[-1]), *rest


def _flat(table: ChainMap[Any, Any]) -> dict[Any, Any]:
    """Return the same as a plain dictionary, which pickle looks at without a call."""
    flat: dict[Any, Any] = {}
    for each in reversed(table.maps):
        flat.update(each)
    return flat


def _is_found_by_name(cached: Any) -> bool:
    if cached.__module__ == "__main__" or not _importable(cached.__module__):
        return False
    try:
        return attrgetter(cached.__qualname__)(sys.modules[cached.__module__]) is cached
    except (AttributeError, KeyError):
        return False


def _cache(func: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Make anew, with nothing in its cache, what ``functools.lru_cache`` has made: cloudpickle only knows its name."""
    return functools.lru_cache(**parameters)(func)


def _cached_property(func: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    """Make a ``functools.cached_property`` anew: before Python 3.12 it held a lock, which cannot be pickled."""
    made = functools.cached_property(func)
    made.attrname = name
    return made


def _importable(module: str | None) -> bool:
    """Tell whether another process with the same path would import this very module; a test runner's may be nowhere."""
    name = module or "builtins"
    if name not in _found:
        _found[name] = _is_found(name)
    return _found[name]


_found: dict[str, bool] = {}


def _is_found(name: str) -> bool:
    package = name.rpartition(".")[0]
    if package and not _importable(package):
        return False
    path = getattr(sys.modules.get(package), "__path__", None)
    spec = next(filter(None, (_ask(finder, name, path) for finder in sys.meta_path)), None)
    return spec is not None and _is_of(spec, sys.modules.get(name))


def _ask(finder: Any, name: str, path: Any) -> ModuleSpec | None:
    try:
        found: ModuleSpec | None = finder.find_spec(name, path)
    except Exception:  # noqa: BLE001 - somebody else's finder
        return None
    return found


def _is_of(spec: ModuleSpec, module: Any) -> bool:
    """Tell whether what would be imported is what is here: another folder may hold something of the same name."""
    file = getattr(module, "__file__", None)
    if file is None:
        return list(spec.submodule_search_locations or ()) == list(getattr(module, "__path__", ()))
    return not spec.has_location or spec.origin == file


def pack(values: Sequence[Any], classes: ClassTable, *, to_file: bool = False) -> tuple[Parcel, dict[int, Exception]]:
    """Pack ``values``; the second part tells which positions could not be, and why. In their places is ``None``.

    ``to_file``: the parcel need not be whole, as it is about to be spilled.
    """
    try:
        return _pack_plain(values) or _pack_each(values, classes, to_file=to_file)
    except MemoryError:
        return _pack_sparingly(values, classes, to_file=to_file)


def pack_function(func: Any, classes: ClassTable, *, to_file: bool = False) -> tuple[Parcel, dict[int, Exception]]:
    """Pack a map's function, as :func:`pack` does. One that goes by its name needs nobody to walk through it."""
    if _goes_by_name(func):
        return Parcel(pickle.dumps([func], 5)), {}
    return pack([func], classes, to_file=to_file)


def _goes_by_name(func: Any) -> bool:
    return type(func) is FunctionType and _should_pickle_by_reference(func) and _importable(func.__module__)


def _pack_plain(values: Sequence[Any]) -> tuple[Parcel, dict[int, Exception]] | None:
    """Pack values together; ``None`` where they are to go one by one."""
    if not _all_plain(values):
        return None
    file = _Pieces()
    pickle.Pickler(file, 5).dump(values)
    if sum(map(len, file.pieces)) > _LARGE_TOGETHER:
        return None
    return Parcel(b"".join(file.pieces)), {}


def _pack_each(values: Iterable[Any], classes: ClassTable, *, to_file: bool) -> tuple[Parcel, dict[int, Exception]]:
    """Pack values one by one. Raises ``MemoryError`` where there is not enough of it."""
    file = _Pieces()
    pieces, marks = file.pieces, [0]
    buffers: list[pickle.PickleBuffer] = []
    pickler = _Pickler(file, classes, buffer_callback=lambda buffer: _keep_inside(buffer, buffers))
    counts: list[int] = []
    refused: dict[int, Exception] = {}
    for position, value in enumerate(values):
        known = len(buffers)
        try:
            pickler.dump(value)
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - __reduce__ is the user's code and may raise anything
            refused[position] = NotPicklable(f"{describe_fault(value)}: {exc}")
            refused[position].__cause__ = exc
            pieces[marks[-1] :] = [_NONE]
            del buffers[known:]
        pickler.clear_memo()
        if len(pieces) > marks[-1] + 1:  # something large: if it is not bytes, its owner may change it
            pieces[marks[-1] :] = map(bytes, pieces[marks[-1] :])
        marks.append(len(pieces))
        counts.append(len(buffers) - known)
    left_out = tuple({**classes.left_out, **pickler.left_out})
    sizes = list(accumulate(map(len, pieces), initial=0))
    ends = tuple(sizes[mark] for mark in marks[1:])
    data = _put_together(pieces, sizes[-1], to_file=to_file)
    return Parcel(data, ends, buffers, tuple(counts) if buffers else (), left_out), refused


class _Pieces:
    """A file for a pickler that keeps what is written as it is: large ``bytes`` are not copied."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.write = self.pieces.append


def _put_together(pieces: list[bytes], size: int, *, to_file: bool) -> bytes | list[bytes]:
    """Return the pieces in one, unless they go to a file and are quicker written one by one."""
    return pieces if to_file and size >= _PIECE * len(pieces) else b"".join(pieces)


def _pack_sparingly(
    values: Iterable[Any], classes: ClassTable, *, to_file: bool
) -> tuple[Parcel, dict[int, Exception]]:
    """Pack values for some of which there may not be enough memory: those are refused, the others are not."""
    parcels: list[Parcel] = []
    refused: dict[int, Exception] = {}
    for position, value in enumerate(values):
        try:
            parcel, reasons = _pack_each([value], classes, to_file=to_file)
        except MemoryError as exc:
            parcel, reasons = _NOTHING, {0: _no_memory(value, exc)}
        parcels.append(parcel)
        if reasons:
            refused[position] = reasons[0]
    return _joined(parcels, to_file=to_file), refused


def _no_memory(value: object, exc: MemoryError) -> MemoryError:
    refusal = MemoryError(f"there is not enough memory to pickle a {type(value).__qualname__}")
    refusal.__cause__ = exc
    return refusal


def _joined(parcels: list[Parcel], *, to_file: bool) -> Parcel:
    pieces = [piece for parcel in parcels for piece in parcel.pieces()]
    ends = tuple(accumulate(parcel.size() for parcel in parcels))
    buffers = [buffer for parcel in parcels for buffer in parcel.buffers]
    counts = tuple(len(parcel.buffers) for parcel in parcels) if buffers else ()
    left_out = tuple({reference: None for parcel in parcels for reference in parcel.left_out})
    return Parcel(_put_together(pieces, ends[-1], to_file=to_file), ends, buffers, counts, left_out)


def _all_plain(values: Sequence[Any]) -> bool:
    if isinstance(values, range):
        return True
    types = set(map(type, values))
    if types <= _PLAIN:
        return True
    return types == {tuple} and set(map(type, chain.from_iterable(values))) <= _PLAIN


def _keep_inside(buffer: pickle.PickleBuffer, outside: list[pickle.PickleBuffer]) -> bool:
    try:
        small = buffer.raw().nbytes < _OUT_OF_BAND
    except BufferError:  # not contiguous
        return True
    if not small:
        outside.append(buffer)
    return small


class Unpacked:
    """A parcel's values, each loaded when it is asked for by its position."""

    def __init__(self, parcel: Parcel) -> None:
        self._view = memoryview(parcel.data)
        ends = parcel.ends or ()
        self._spans = list(zip((0, *ends), ends, strict=False))
        bounds = list(accumulate(parcel.counts, initial=0))
        self._buffers = [parcel.buffers[a:b] for a, b in pairwise(bounds)]

    def __getitem__(self, position: int) -> Any:
        start, end = self._spans[position]
        buffers = map(_writable, self._buffers[position]) if self._buffers else ()
        return pickle.loads(self._view[start:end], buffers=buffers)

    def __len__(self) -> int:
        return len(self._spans)


def _raw(buffer: Any) -> memoryview:
    return buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer).cast("B")


def _writable(buffer: Any) -> Any:
    """An array's owner may write to it, whatever its bytes travelled in."""
    return bytearray(buffer) if memoryview(buffer).readonly else buffer


def unpack(parcel: Parcel | SpilledParcel, *, keep: bool = False) -> list[Any] | Unpacked:
    """Open a parcel. A spilled one's file is removed, as its only reader has it mapped, unless it is to be kept."""
    if isinstance(parcel, SpilledParcel):
        parcel = _map_file(parcel, keep=keep)
    parcel = parcel.whole()
    if parcel.ends is None:
        values: list[Any] = pickle.loads(parcel.data)
        return values
    return Unpacked(parcel)


def is_large(parcel: Parcel | SpilledParcel) -> bool:
    """Tell whether it is to go, or went, to a file."""
    return parcel.nbytes() >= _SPILL


def spill(parcel: Parcel, folder: str | None, least: int = _SPILL) -> Parcel | SpilledParcel:
    """Move a parcel of at least so many bytes to a file in ``folder``; make it fit to be pickled itself where it stays."""
    if folder is not None and parcel.nbytes() >= least:
        # Where there is no room left: the pipe is slower, and always has room.
        with suppress(OSError):
            return _write_file(parcel, folder)
    parcel = parcel.whole()
    return parcel._replace(buffers=[bytearray(_raw(buffer)) for buffer in parcel.buffers]) if parcel.buffers else parcel


def _write_file(parcel: Parcel, folder: str) -> SpilledParcel:
    path, places = _spool.write_file(folder, lambda file: _write_parcel(file, parcel))
    return SpilledParcel(path, parcel.size(), tuple(places), parcel.ends, parcel.counts)


def _write_parcel(file: io.FileIO, parcel: Parcel) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []
    for piece in parcel.pieces():
        _spool.write_all(file, memoryview(piece))
    for buffer in parcel.buffers:
        raw = _raw(buffer)
        file.seek(-file.tell() % _ALIGNMENT, os.SEEK_CUR)
        places.append((file.tell(), raw.nbytes))
        _spool.write_all(file, raw)
    return places


def _map_file(spilled: SpilledParcel, *, keep: bool) -> Parcel:
    with open(spilled.path, "rb") as file:
        # A private mapping: the reader may write to his arrays, and the file stays as it is.
        view = memoryview(_mapped(file))
    if not keep:
        os.unlink(spilled.path)
    buffers = [view[start : start + size] for start, size in spilled.places]
    return Parcel(view[: spilled.size], spilled.ends, buffers, spilled.counts)


def _mapped(file: io.BufferedReader) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as exc:
        if exc.errno == errno.ENOMEM:
            raise MemoryError(f"there is not enough memory to map {os.fstat(file.fileno()).st_size} bytes") from exc
        raise


def prove_memory_to_send(parcel: Parcel | SpilledParcel) -> None:
    """Raise ``MemoryError`` here, where something can be done about it, rather than inside an engine."""
    size = parcel.nbytes() if isinstance(parcel, Parcel) else 0
    if size < _SPILL and not _may_be_refused_memory():
        return
    try:
        mmap.mmap(-1, _COPIES * size + _BESIDES).close()
    except OSError as exc:
        raise MemoryError(f"there is not enough memory to send {size} bytes") from exc


def _may_be_refused_memory() -> bool:
    """Tell whether this process has a limit of its own: a system that has none left kills rather than refuse a little."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return True
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return any(limit != resource.RLIM_INFINITY for limit in limits)


def describe_fault(value: object) -> str:
    """Say which part of ``value`` keeps it from being pickled, as a path from its top."""
    path, culprit = _deepest_fault(value)
    where = f", at {path.lstrip('.')}" if path else ""
    return f"a {type(value).__qualname__} cannot be pickled because of a {type(culprit).__qualname__}{where}"


def _deepest_fault(value: object) -> tuple[str, object]:
    path, seen = "", {id(value)}
    while len(seen) < _DEEPEST_FAULT:
        faulty = ((name, part) for name, part in _parts(value) if id(part) not in seen and not _picklable(part))
        name, part = next(faulty, ("", None))
        if not name:
            break
        path, value = path + name, part
        seen.add(id(part))
    return path, value


def _picklable(value: object) -> bool:
    try:
        _by_value.dumps(value)
    except Exception:  # noqa: BLE001 - whatever it is, it cannot be pickled
        return False
    return True


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """Yield what ``value`` is made of, each with the words that lead to it."""
    if isinstance(value, Reference):
        return
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"[{reprlib.repr(key)}]", part
    elif isinstance(value, (list, tuple, set, frozenset)):
        for position, part in enumerate(value):
            yield f"[{position}]", part
    yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())
    yield from function_parts(value)


def function_parts(func: object) -> Iterator[tuple[str, object]]:
    """Yield what a function drags along: closure, globals, defaults; of a method its object; of a partial its parts."""
    code = getattr(func, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, getattr(func, "__closure__", None) or (), strict=False):
            try:
                yield f".closure variable {name!r}", cell.cell_contents
            except ValueError:  # not yet assigned
                continue
        known = getattr(func, "__globals__", {})
        yield from ((f".global {name!r}", known[name]) for name in _global_names(code) if name in known)
        for position, part in enumerate(getattr(func, "__defaults__", None) or ()):
            yield f".default {position}", part
    for attribute in ("__self__", "__func__", "func", "args", "keywords"):
        part = getattr(func, attribute, None)
        if part is not None and not isinstance(part, type(os)):
            yield f".{attribute}", part


def _global_names(code: Any) -> set[str]:
    """Return the names that a code object and those nested in it look up."""
    nested = (const for const in code.co_consts if hasattr(const, "co_names"))
    return set(code.co_names).union(*map(_global_names, nested))
