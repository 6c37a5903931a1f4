"""Exceptions as values: how one gets from the worker to the caller."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._errors import RemoteError
from anymap._host import guarded, handlers

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from anymap._serialize.tracebacks import Entry

_LONGEST_CHAIN = 50
"""So many causes of an exception are rebuilt; what is beyond them is shown as text."""


class Encoded(NamedTuple):
    """One exception as plain data, its chain and the members of its group included."""

    type_name: str
    message: str
    traceback: str
    entries: tuple[Entry, ...]
    pickled: bytes | None
    cause: Encoded | None
    context: Encoded | None
    suppress_context: bool
    notes: tuple[str, ...]
    members: tuple[Encoded, ...]


class WorkerTraceback(Exception):  # noqa: N818 - never raised: it only shows text where a traceback is printed
    """Stands for the rest of a long chain of exceptions, which it shows as text."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def encode(exc: BaseException, dumps: Callable[[Any], bytes]) -> Encoded:
    """Turn ``exc`` into plain data. Proves here that what is sent can be rebuilt there."""
    # Where it comes from a map inside this one, its item there is not what failed here, and may be large.
    inner = guarded.unmark(exc)
    try:
        encoded = _encode(exc, dumps, {id(exc)})
    finally:
        if inner is not None:
            guarded.mark(exc, inner)
    return encoded._replace(traceback=guarded.traceback(exc))


def _encode(exc: BaseException, dumps: Callable[[Any], bytes], seen: set[int]) -> Encoded:
    from anymap._serialize import tracebacks  # noqa: PLC0415 - each worker imports this module, and few of them see an error

    cause, context = guarded.get(exc, "__cause__"), guarded.get(exc, "__context__")
    encoded_cause = _encode_linked(cause, dumps, seen)
    return Encoded(
        type_name=guarded.type_name(exc),
        message=guarded.text(exc),
        traceback=guarded.traceback(exc, chain=False),
        entries=tracebacks.take_apart(guarded.get(exc, "__traceback__")),
        pickled=_provably(exc, dumps),
        cause=encoded_cause,
        context=encoded_cause if context is cause else _encode_linked(context, dumps, seen),
        suppress_context=guarded.get(exc, "__suppress_context__"),
        notes=tuple(guarded.notes(exc)),
        members=tuple(_encode(member, dumps, seen) for member in guarded.members(exc)),
    )


def _encode_linked(exc: BaseException | None, dumps: Callable[[Any], bytes], seen: set[int]) -> Encoded | None:
    if exc is None or id(exc) in seen:
        return None
    if len(seen) > _LONGEST_CHAIN:
        return _encode(WorkerTraceback(guarded.traceback(exc)), dumps, seen)
    seen.add(id(exc))
    return _encode(exc, dumps, seen)


def _provably(exc: BaseException, dumps: Callable[[Any], bytes]) -> bytes | None:
    """Pickle ``exc`` and load it again: what it holds may pickle and not be loaded."""
    if not issubclass(type(exc), Exception):
        return None
    try:
        pickled = dumps(exc)
        return pickled if type(pickle.loads(pickled)) is type(exc) else None
    except Exception:  # noqa: BLE001 - the user's own reducers and constructors run here
        return None


def decode(encoded: Encoded) -> Exception:
    """Rebuild what :func:`encode` took apart, with the tracebacks that it had in the worker."""
    exc = _rebuild(encoded)
    _restore(exc, encoded)
    return exc


def _restore(exc: BaseException, encoded: Encoded) -> None:
    """Give an exception what is not pickled with it."""
    from anymap._serialize import tracebacks  # noqa: PLC0415 - as in _encode

    guarded.put(exc, "__traceback__", tracebacks.put_together(encoded.entries))
    cause = encoded.cause and decode(encoded.cause)
    guarded.put(exc, "__cause__", cause)
    same = encoded.context is encoded.cause
    guarded.put(exc, "__context__", cause if same else encoded.context and decode(encoded.context))
    guarded.put(exc, "__suppress_context__", encoded.suppress_context)
    if guarded.notes(exc) != list(encoded.notes):
        guarded.attributes(exc)["__notes__"] = list(encoded.notes)
    for member, each in zip(guarded.members(exc), encoded.members, strict=False):
        _restore(member, each)


def _rebuild(encoded: Encoded) -> Exception:
    if encoded.pickled is not None:
        try:
            exc = pickle.loads(encoded.pickled)
        except Exception:  # noqa: BLE001 - it could be loaded there; here something it needs is missing
            exc = None
        if isinstance(exc, Exception):
            return exc
    if encoded.members:
        return ExceptionGroup(encoded.message, [_rebuild(member) for member in encoded.members])
    from anymap._serialize import tracebacks  # noqa: PLC0415 - as in _encode

    return RemoteError(encoded.type_name, encoded.message, tracebacks.with_source(encoded.traceback))


def as_exception(exc: BaseException) -> Exception:
    """Return ``exc``, or an ``Exception`` that says what it was: an item must not end the caller's program."""
    if issubclass(type(exc), Exception):
        return exc  # type: ignore[return-value]
    stand_in = RemoteError(guarded.type_name(exc), guarded.text(exc), guarded.traceback(exc))
    stand_in.__cause__ = exc
    return stand_in


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins with the first frame that is none of this package's."""
    while traceback is not None and _is_ours(traceback.tb_frame.f_globals.get("__name__")):
        traceback = traceback.tb_next
    return traceback


def raised_by_handler(exc: BaseException) -> bool:
    """Tell whether a signal handler raised ``exc`` while code of this package ran, and none of the caller's in it."""
    traceback, last = guarded.get(exc, "__traceback__"), None
    while traceback is not None and _is_ours(traceback.tb_frame.f_globals.get("__name__")):
        last, traceback = traceback, traceback.tb_next
    if last is None:
        return False
    # While handlers are not held back, nothing of ours stands between the code that is interrupted and the handler.
    return last.tb_frame.f_code in handlers.CALLERS or (
        traceback is not None and traceback.tb_frame.f_code in handlers.codes()
    )


def _is_ours(module: object) -> bool:
    # What the program and the exam have items call is as good as the user's.
    return isinstance(module, str) and module.startswith("anymap.") and not module.startswith(_USERS)


_USERS = ("anymap._cli", "anymap.testing")
