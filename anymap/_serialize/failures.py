"""What the caller can ask of an exception: which item it was, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._errors import RemoteError
from anymap._host import guarded
from anymap._serialize import exception_parts

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of an item that failed; :func:`failure` finds it from the exception."""

    index: int
    """The item's place in the input, from 0."""
    item: Any
    """The item itself; a tuple where several iterables were given."""
    exception: Exception
    """What was raised, or what stands in for it."""
    traceback: str
    """The worker's traceback, as text."""
    attempts: int
    """How often the item was tried."""
    seconds: float
    """How long the last attempt took."""
    worker: str
    """Where it was tried: the process id, with the host's name if that is another one; empty if it was never sent."""
    output: str = ""
    """What the last attempt printed, where that is kept (``output="keep"``) and the worker lived to tell."""


class _Mark(NamedTuple):
    """What an exception that has been through a map carries."""

    failure: Failure
    depth: int
    """How many maps that map was inside of."""


def attach(
    exc: Exception,
    index: int,
    item: object,
    attempts: int,
    seconds: float,
    worker: str,
    *,
    output: str = "",
    depth: int,
    show_item: bool,
) -> Exception:
    """Put on ``exc`` the note that names its item, and what :func:`failure` returns.

    Of an exception that already belongs to another item a copy is made: a function may raise one object many times.
    One that comes out of a map inside this one, which is at ``depth``, keeps its note of the item there.
    """
    mark: _Mark | None = guarded.mark_of(exc)
    if mark is not None and mark.depth <= depth:
        exc = _copy(exc)
    text = guarded.traceback(exc)
    guarded.mark(exc, _Mark(Failure(index, item, exc, text, attempts, seconds, worker, output), depth))
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    where = f"after {tries} in worker {worker}" if worker else "before it was sent to a worker"
    guarded.add_note(exc, f"anymap: {item_name(index, item, shown=show_item)} failed {where}")
    return exc


def item_name(index: int, item: object, *, shown: bool) -> str:
    """Return what messages call an item; ``shown``: with its ``repr``."""
    return f"item {index} ({guarded.short_repr(item)})" if shown else f"item {index}"


def first_of(failures: Sequence[Failure], *, show_items: bool) -> str:
    """Return what a message says of some failures: the first three, in a line."""
    told = [
        f"{item_name(each.index, each.item, shown=show_items)}: {in_short(each.exception)}" for each in failures[:_TOLD]
    ]
    more = [f"and {len(failures) - _TOLD} more"] if len(failures) > _TOLD else []
    return f": {'; '.join([*told, *more])}" if told else ""


def in_short(exc: Exception) -> str:
    """Return the name of an exception's class and the begin of its text, in a line."""
    text = " ".join(guarded.text(exc).split())
    text = f"{text[:_LONGEST]}..." if len(text) > _LONGEST else text
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


_TOLD = 3
"""Failures that a message names."""
_LONGEST = 100
"""Characters of an exception's text in such a message."""


def _copy(exc: Exception) -> Exception:
    try:
        twin: Exception = exception_parts.copy(exc)
    except Exception:  # noqa: BLE001 - the user's own reducers run here
        twin = RemoteError(guarded.type_name(exc), guarded.text(exc), guarded.traceback(exc))
    else:
        # The copy shares what the original holds, which a reducer may have handed over as it is; its notes and its item must
        # be its own.
        guarded.put(twin, "__dict__", dict(guarded.attributes(exc)))
        guarded.unmark(twin)
        kept = [note for note in guarded.notes(exc) if not note.startswith("anymap: item ")]
        guarded.attributes(twin)["__notes__"] = kept
    for field in ("__traceback__", "__cause__", "__context__", "__suppress_context__"):
        guarded.put(twin, field, guarded.get(exc, field))
    return twin


def failure(exc: BaseException) -> Failure | None:
    """Return what is known of the item whose failure ``exc`` is; ``None`` for an exception of no item.

    Raises:
        TypeError: ``exc`` is no exception.

    >>> import anymap
    >>> [error] = anymap.pmap(int, ["x"], backend="serial", on_error="return")
    >>> anymap.failure(error).index
    0
    """
    if not isinstance(exc, BaseException):
        raise TypeError(f"failure() takes an exception, not {guarded.short_repr(exc)}")
    mark: _Mark | None = guarded.mark_of(exc)
    return None if mark is None else mark.failure
