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

    is_group = issubclass(type(exc), BaseExceptionGroup)
    members = guarded.message_and_members(exc)[1] if is_group else ()  # type: ignore[arg-type]
    return Encoded(
        type_name=guarded.type_name(exc),
        message=guarded.text(exc),
        traceback=guarded.traceback(exc, chain=False),
        entries=tracebacks.take_apart(guarded.get(exc, "__traceback__")),
        pickled=_provably(exc, dumps),
        cause=_encode_linked(guarded.get(exc, "__cause__"), dumps, seen),
        context=_encode_linked(guarded.get(exc, "__context__"), dumps, seen),
        suppress_context=guarded.get(exc, "__suppress_context__"),
        notes=tuple(guarded.notes(exc)),
        members=tuple(_encode(member, dumps, seen) for member in members),
    )


def _encode_linked(exc: BaseException | None, dumps: Callable[[Any], bytes], seen: set[int]) -> Encoded | None:
    if exc is None or id(exc) in seen:
        return None
    if len(seen) > _LONGEST_CHAIN:
        return _encode(WorkerTraceback(guarded.traceback(exc)), dumps, seen)
    seen.add(id(exc))
    return _encode(exc, dumps, seen)


def _provably(exc: BaseException, dumps: Callable[[Any], bytes]) -> bytes | None:
    """Pickle ``exc`` and load it again: a class with a constructor of its own often pickles and cannot be loaded."""
    kind = type(exc)
    if not issubclass(kind, Exception):
        return None
    for pickled_form in (exc, Parts(kind, guarded.get(exc, "args"), dict(guarded.attributes(exc)))):
        try:
            pickled = dumps(pickled_form)
            if type(_load(pickled)) is type(exc):
                return pickled
        except Exception:  # noqa: BLE001, S112 - the user's own reducers and constructors run here
            continue
    return None


class Parts(NamedTuple):
    """An exception to be put together without its constructor, whose arguments are not known."""

    kind: type[Exception]
    args: tuple[Any, ...]
    attributes: dict[str, Any]

    def exception(self) -> Exception:
        exc = self.kind.__new__(self.kind, *self.args)
        guarded.put(exc, "args", self.args)
        guarded.attributes(exc).update(self.attributes)
        return exc


def _load(pickled: bytes) -> Any:
    loaded = pickle.loads(pickled)
    return loaded.exception() if isinstance(loaded, Parts) else loaded


def decode(encoded: Encoded) -> Exception:
    """Rebuild what :func:`encode` took apart, with the tracebacks that it had in the worker."""
    from anymap._serialize import tracebacks  # noqa: PLC0415 - as in _encode

    exc = _rebuild(encoded)
    guarded.put(exc, "__traceback__", tracebacks.put_together(encoded.entries))
    if encoded.cause is not None:
        guarded.put(exc, "__cause__", decode(encoded.cause))
    if encoded.context is not None and encoded.context != encoded.cause:
        guarded.put(exc, "__context__", decode(encoded.context))
    guarded.put(exc, "__suppress_context__", encoded.suppress_context)
    if not guarded.notes(exc):
        for note in encoded.notes:
            guarded.add_note(exc, note)
    return exc


def _rebuild(encoded: Encoded) -> Exception:
    if encoded.pickled is not None:
        try:
            exc = _load(encoded.pickled)
        except Exception:  # noqa: BLE001 - it could be loaded there; here something it needs is missing
            exc = None
        if isinstance(exc, Exception):
            # Where tblib is installed it comes with its chain, which we rebuild ourselves.
            guarded.put(exc, "__cause__", None)
            guarded.put(exc, "__context__", None)
            return exc
    if encoded.members:
        return ExceptionGroup(encoded.message, [decode(member) for member in encoded.members])
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
    return last is not None and last.tb_frame.f_code in handlers.CALLERS


def _is_ours(module: object) -> bool:
    # What the program and the exam have items call is as good as the user's.
    return isinstance(module, str) and module.startswith("anymap.") and not module.startswith(_USERS)


_USERS = ("anymap._cli", "anymap.testing")
