"""Functions, arguments and results to bytes and back.

A *payload* is what travels: the values of one chunk, or one function. Values that cannot run code when they are
loaded (numbers, text, bytes) go in one pickle. All others are pickled one by one, so that one that cannot be loaded
is that item's error alone, and a worker that dies while loading died on a known item.

Large buffers (pickle protocol 5) stay out of the pickle. Where both sides share a host they are written to a file
once and mapped by the reader, without a copy.

What cannot be imported elsewhere, as what ``__main__`` defines, travels by value, see ``_pickler``.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import pickle
import reprlib
from contextlib import suppress
from itertools import accumulate, chain, pairwise
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudpickle.cloudpickle import _should_pickle_by_reference

from anymap._errors import NotPicklable
from anymap._host import by_value, guarded
from anymap._host import spill as _spool
from anymap._serialize.importable import is_importable
from anymap._serialize.object_table import PLAIN, Blob, ObjectTable
from anymap._serialize.pickler import Pickler, Reference
from anymap._serialize.rebuilt import names_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_OUT_OF_BAND = 64 * 1024
"""A buffer of fewer bytes is cheaper inside the pickle."""
_SPILL = 64 * 1024
"""A payload of fewer bytes travels through the pipe; more would block a writer whose reader is busy."""
_LARGE_TOGETHER = 1024 * 1024
"""Plain values of more bytes go one by one, too: a process without memory for all of them may have it for some."""
_COPIES, _BESIDES = 3, 1024 * 1024
"""To send a payload through a pipe takes memory for so many copies of it, and so many bytes besides."""
_DEEPEST_FAULT = 20
"""What cannot be pickled because it is nested too deeply has its fault nowhere."""
_PIECE = 32 * 1024
"""Pieces of fewer bytes are quicker put together than written one by one."""
_ALIGNMENT = 64
"""Arrays that start on a cache line keep the speed of freshly allocated ones."""


class Payload(NamedTuple):
    """Packed values. ``ends`` and ``counts`` say where each item ends in ``data`` and how many buffers it has."""

    data: Any
    """Bytes; or a list of pieces, where to put them together would be to copy much, see :meth:`whole`."""
    ends: tuple[int, ...] | None = None
    """``None``: ``data`` is one pickle of the whole list."""
    buffers: Sequence[Any] = ()
    counts: tuple[int, ...] = ()
    left_out: tuple[Any, ...] = ()
    """The references whose values the engine is to carry, not the payload."""

    def nbytes(self) -> int:
        return self.size() + sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def size(self) -> int:
        """Return how many bytes ``data`` has."""
        return sum(map(len, self.pieces()))

    def pieces(self) -> list[Any]:
        return self.data if isinstance(self.data, list) else [self.data]

    def whole(self) -> Payload:
        """Return the same with ``data`` in one."""
        return self._replace(data=b"".join(self.data)) if isinstance(self.data, list) else self


_NONE = pickle.dumps(None, 5)
_NOTHING = Payload(_NONE, (len(_NONE),))
"""Stands for a value that cannot be packed."""


class SpilledPayload(NamedTuple):
    """A payload in a file: the pickles first, then each buffer at an aligned place."""

    path: str
    size: int
    places: tuple[tuple[int, int], ...]
    ends: tuple[int, ...] | None
    counts: tuple[int, ...]

    def nbytes(self) -> int:
        return self.size + sum(size for _, size in self.places)


def pack(values: Sequence[Any], table: ObjectTable, *, to_file: bool = False) -> tuple[Payload, dict[int, Exception]]:
    """Pack ``values``; the second part tells which positions could not be, and why. In their places is ``None``.

    ``to_file``: the payload need not be whole, as it is about to be spilled.
    """
    try:
        return _pack_plain(values) or _pack_each(values, table, to_file=to_file)
    except MemoryError:
        return _pack_sparingly(values, table, to_file=to_file)


def dumps(value: Any, table: ObjectTable) -> bytes:
    """Pickle one value, its buffers too."""
    file = io.BytesIO()
    Pickler(file, table).dump(value)
    return file.getvalue()


def pack_function(func: Any, table: ObjectTable, *, to_file: bool = False) -> tuple[Payload, dict[int, Exception]]:
    """Pack a map's function, as :func:`pack` does. One that goes by its name is not searched."""
    if _goes_by_name(func):
        return Payload(pickle.dumps([func], 5)), {}
    blob = Blob(None)
    with table.lock:
        try:
            payload, refused = _pack_each([func], table, blob, to_file=to_file)
        except MemoryError as exc:
            return _NOTHING, {0: _no_memory(func, exc)}
        if not refused:
            table.commit(blob)
    return payload, refused


def _goes_by_name(func: Any) -> bool:
    return type(func) is FunctionType and _should_pickle_by_reference(func) and is_importable(func.__module__)


def unpack_function(payload: Payload | SpilledPayload, table: ObjectTable) -> Any:
    """Open the payload of a map's function, which brings what the map knows by number."""
    if isinstance(payload, SpilledPayload):
        payload = _map_file(payload, keep=True)
    payload = payload.whole()
    if payload.ends is None:
        return pickle.loads(payload.data)[0]
    buffers = map(_writable, payload.buffers)
    return table.receive(None, pickle.Unpickler(io.BytesIO(payload.data), buffers=buffers))


def _pack_plain(values: Sequence[Any]) -> tuple[Payload, dict[int, Exception]] | None:
    """Pack values together; ``None`` where they are to go one by one."""
    if not _all_plain(values):
        return None
    file = _Pieces()
    pickle.Pickler(file, 5).dump(values)
    if sum(map(len, file.pieces)) > _LARGE_TOGETHER:
        return None
    return Payload(b"".join(file.pieces)), {}


def _pack_each(
    values: Iterable[Any], table: ObjectTable, blob: Blob | None = None, *, to_file: bool
) -> tuple[Payload, dict[int, Exception]]:
    """Pack values one by one, or one with what has a number. Raises ``MemoryError`` where there is not enough of it."""
    file = _Pieces()
    pieces, marks = file.pieces, [0]
    buffers: list[pickle.PickleBuffer] = []
    pickler = Pickler(file, table, blob, buffer_callback=lambda buffer: _keep_inside(buffer, buffers))
    counts: list[int] = []
    refused: dict[int, Exception] = {}
    for position, value in enumerate(values):
        known = len(buffers)
        try:
            pickler.dump(value)
            if blob is not None:
                pickler.dump(blob.numbered())
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001 - __reduce__ is the user's code and may raise anything
            refused[position] = NotPicklable(f"{describe_fault(value)}: {guarded.text(exc)}")
            refused[position].__cause__ = exc
            pieces[marks[-1] :] = [_NONE]
            del buffers[known:]
        pickler.forget()
        if len(pieces) > marks[-1] + 1:  # something large: if it is not bytes, its owner may change it
            pieces[marks[-1] :] = map(bytes, pieces[marks[-1] :])
        marks.append(len(pieces))
        counts.append(len(buffers) - known)
    left_out = tuple({**table.left_out, **pickler.left_out})
    sizes = list(accumulate(map(len, pieces), initial=0))
    ends = tuple(sizes[mark] for mark in marks[1:])
    data = _put_together(pieces, sizes[-1], to_file=to_file)
    return Payload(data, ends, buffers, tuple(counts) if buffers else (), left_out), refused


class _Pieces:
    """A file for a pickler that keeps what is written as it is: large ``bytes`` are not copied."""

    def __init__(self) -> None:
        self.pieces: list[Any] = []
        self.write = self.pieces.append


def _put_together(pieces: list[bytes], size: int, *, to_file: bool) -> bytes | list[bytes]:
    """Return the pieces in one, unless they go to a file and are quicker written one by one."""
    return pieces if to_file and size >= _PIECE * len(pieces) else b"".join(pieces)


def _pack_sparingly(
    values: Iterable[Any], table: ObjectTable, *, to_file: bool
) -> tuple[Payload, dict[int, Exception]]:
    """Pack values for some of which there may not be enough memory: those are refused, the others are not."""
    payloads: list[Payload] = []
    refused: dict[int, Exception] = {}
    for position, value in enumerate(values):
        try:
            payload, reasons = _pack_each([value], table, to_file=to_file)
        except MemoryError as exc:
            payload, reasons = _NOTHING, {0: _no_memory(value, exc)}
        payloads.append(payload)
        if reasons:
            refused[position] = reasons[0]
    return _joined(payloads, to_file=to_file), refused


def _no_memory(value: object, exc: MemoryError) -> MemoryError:
    refusal = MemoryError(f"there is not enough memory to pickle a {type(value).__qualname__}")
    refusal.__cause__ = exc
    return refusal


def _joined(payloads: list[Payload], *, to_file: bool) -> Payload:
    pieces = [piece for payload in payloads for piece in payload.pieces()]
    ends = tuple(accumulate(payload.size() for payload in payloads))
    buffers = [buffer for payload in payloads for buffer in payload.buffers]
    counts = tuple(len(payload.buffers) for payload in payloads) if buffers else ()
    left_out = tuple({reference: None for payload in payloads for reference in payload.left_out})
    return Payload(_put_together(pieces, ends[-1], to_file=to_file), ends, buffers, counts, left_out)


def _all_plain(values: Sequence[Any]) -> bool:
    if isinstance(values, range):
        return True
    types = set(map(type, values))
    if types <= PLAIN:
        return True
    return types == {tuple} and set(map(type, chain.from_iterable(values))) <= PLAIN


def _keep_inside(buffer: pickle.PickleBuffer, outside: list[pickle.PickleBuffer]) -> bool:
    try:
        small = buffer.raw().nbytes < _OUT_OF_BAND
    except BufferError:  # not contiguous
        return True
    if not small:
        outside.append(buffer)
    return small


class Unpacked:
    """A payload's values, each loaded when it is asked for by its position."""

    def __init__(self, payload: Payload) -> None:
        self._view = memoryview(payload.data)
        ends = payload.ends or ()
        self._spans = list(zip((0, *ends), ends, strict=False))
        bounds = list(accumulate(payload.counts, initial=0))
        self._buffers = [payload.buffers[a:b] for a, b in pairwise(bounds)]

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


def unpack(payload: Payload | SpilledPayload, *, keep: bool = False) -> list[Any] | Unpacked:
    """Open a payload. A spilled one's file is removed, as its only reader has it mapped, unless it is to be kept."""
    if isinstance(payload, SpilledPayload):
        payload = _map_file(payload, keep=keep)
    payload = payload.whole()
    if payload.ends is None:
        values: list[Any] = pickle.loads(payload.data)
        return values
    return Unpacked(payload)


def is_large(payload: Payload | SpilledPayload) -> bool:
    """Tell whether it is to go, or went, to a file."""
    return payload.nbytes() >= _SPILL


def spill(payload: Payload, folder: str | None, least: int = _SPILL) -> Payload | SpilledPayload:
    """Move a payload of at least so many bytes to a file in ``folder``; make it fit to be pickled itself where it stays."""
    if folder is not None and payload.nbytes() >= least:
        # Where there is no room left: the pipe is slower, and always has room.
        with suppress(OSError):
            return _write_file(payload, folder)
    payload = payload.whole()
    return (
        payload._replace(buffers=[bytearray(_raw(buffer)) for buffer in payload.buffers])
        if payload.buffers
        else payload
    )


def _write_file(payload: Payload, folder: str) -> SpilledPayload:
    path, places = _spool.write_file(folder, lambda file: _write_payload(file, payload))
    return SpilledPayload(path, payload.size(), tuple(places), payload.ends, payload.counts)


def _write_payload(file: io.FileIO, payload: Payload) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []
    for piece in payload.pieces():
        _spool.write_all(file, memoryview(piece))
    for buffer in payload.buffers:
        raw = _raw(buffer)
        file.seek(-file.tell() % _ALIGNMENT, os.SEEK_CUR)
        places.append((file.tell(), raw.nbytes))
        _spool.write_all(file, raw)
    return places


def _map_file(spilled: SpilledPayload, *, keep: bool) -> Payload:
    with open(spilled.path, "rb") as file:
        # A private mapping: the reader may write to the arrays, and the file stays as it is.
        view = memoryview(_mapped(file))
    if not keep:
        os.unlink(spilled.path)
    buffers = [view[start : start + size] for start, size in spilled.places]
    return Payload(view[: spilled.size], spilled.ends, buffers, spilled.counts)


def _mapped(file: io.BufferedReader) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as exc:
        if exc.errno == errno.ENOMEM:
            raise MemoryError(f"there is not enough memory to map {os.fstat(file.fileno()).st_size} bytes") from exc
        raise


def prove_memory_to_send(payload: Payload | SpilledPayload) -> None:
    """Raise ``MemoryError`` here, where something can be done about it, rather than inside an engine."""
    size = payload.nbytes() if isinstance(payload, Payload) else 0
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
        by_value.dumps(value)
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
        yield from ((f".global {name!r}", known[name]) for name in names_in(code) if name in known)
        for position, part in enumerate(getattr(func, "__defaults__", None) or ()):
            yield f".default {position}", part
    for attribute in ("__self__", "__func__", "func", "args", "keywords"):
        part = getattr(func, attribute, None)
        if part is not None and not isinstance(part, type(os)):
            yield f".{attribute}", part
