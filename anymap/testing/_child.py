"""The exam in a process of its own: a candidate that crashes it, or hangs in spite of all, costs no more than that promise."""

from __future__ import annotations

import pickle
import selectors
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._errors import ConfigError
from anymap._host import by_value, descendants, framing, guarded
from anymap._host.descriptors import Selector
from anymap._serialize.modules import caller_path
from anymap._worker import import_rules
from anymap.testing._exam import promise_of
from anymap.testing._verdicts import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap.backends.base import Backend

_STARTS = 5
"""So many times an engine may be started within a promise."""
_SPARE = 15.0
"""Seconds beyond what the exam gives a promise, after which its process is killed."""


class Sitting(NamedTuple):
    """What is to be examined, and how patiently."""

    backend: Backend | type[Backend]
    patience: float
    startup: float


class Unusable(NamedTuple):
    """Why the candidate cannot be loaded in the process."""

    reason: str


def outcomes(sitting: Sitting, tests: list[str]) -> Iterator[Outcome]:
    """Examine promise by promise; where the process ends, the next one goes on with the promise after that.

    Raises :class:`~anymap.ConfigError` where the candidate cannot be sent to another process or loaded there.
    """
    try:
        data = by_value.dumps(sitting)
    except Exception as exc:
        raise ConfigError(
            f"the backend cannot be sent to the process that examines it: {guarded.type_and_text(exc)}. Give its class, or its "
            "name, or examine it as a BackendSuite with pytest"
        ) from exc
    left = list(tests)
    while left:
        process, line = _start(data, left)
        limit = sitting.patience + _STARTS * sitting.startup + _SPARE
        try:
            while left and (outcome := _next(line, limit)) is not None:
                del left[0]
                yield outcome
            if left:
                yield Outcome(promise_of(left.pop(0)), "broken", _how_it_ended(process, line, limit))
        finally:
            line.close()
            if process.poll() is None:
                descendants.end(process.pid)
            process.wait()


def _start(data: bytes, tests: list[str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        searched = import_rules.statement(caller_path())
        code = f"{searched}; from anymap.testing._child import main; main({theirs.fileno()})"
        process = subprocess.Popen(
            [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for this process, which ends the other
        )
    with suppress(OSError):  # it has ended, which is told where its first word is awaited
        framing.send(ours.fileno(), data)
        framing.send(ours.fileno(), pickle.dumps(tests))
    return process, ours


def _next(line: socket.socket, limit: float) -> Outcome | None:
    """Return what came of the next promise; ``None`` where the process has ended, or does not say it in time."""
    message = framing.receive(line.fileno()) if _has_news(line, limit) else None
    found = pickle.loads(message) if message is not None else None
    if isinstance(found, Unusable):
        raise ConfigError(found.reason)
    return found


def _has_news(line: socket.socket, limit: float) -> bool:
    """Wait for a message, or for the end of the process."""
    with Selector() as selector:
        selector.register(line, selectors.EVENT_READ)
        return bool(selector.select(limit))


def _how_it_ended(process: subprocess.Popen[bytes], line: socket.socket, limit: float) -> str:
    if not _has_news(line, 0):
        return f"no end within {limit:g} s: its process did not even say where it was stuck, and was killed"
    code = process.wait()
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended by itself, with exit code {code}"


def main(fd: int) -> None:
    """Be the process: examine what is asked for, and tell what came of each promise."""
    line = socket.socket(fileno=fd)
    data, tests = framing.receive(fd), framing.receive(fd)
    if data is None or tests is None:
        return
    try:
        sitting = pickle.loads(data)
    except BaseException as exc:  # noqa: BLE001 - what it imports is the candidate's author's
        reason = f"the backend cannot be loaded in the process that examines it: {guarded.type_and_text(exc)}"
        framing.send(fd, pickle.dumps(Unusable(reason)))
        return
    for outcome in outcomes_here(sitting, pickle.loads(tests)):
        framing.send(fd, pickle.dumps(outcome))
    line.close()


def outcomes_here(sitting: Sitting, tests: list[str]) -> Iterator[Outcome]:
    """Examine promise by promise in this process."""
    from anymap.testing.suite import BackendSuite  # noqa: PLC0415 - which has examine() from here

    suite: Any = type("Suite", (BackendSuite,), sitting._asdict())
    exam = suite()
    for name in tests:
        # Whatever it raises, as SystemExit or what pytest has for a failure, is in its outcome.
        with suppress(BaseException):
            getattr(exam, name)()
        yield suite.outcomes[promise_of(name)]
