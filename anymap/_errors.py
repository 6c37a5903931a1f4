"""Everything anymap raises of its own.

AnymapError
├── ConfigError (also ValueError)
├── UnknownBackend (also LookupError)
├── BackendUnavailable (also ImportError)
├── BackendConnectionError (also ConnectionError)
├── UnsupportedOption (also ValueError)
├── WorkerLost
├── ItemTimeout (also TimeoutError)
├── NotPicklable (also TypeError)
├── RemoteError
└── MapError (also ExceptionGroup)

The second base keeps an ``except`` clause working that was written before anymap came.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "AnymapError",
    "BackendConnectionError",
    "BackendUnavailable",
    "ConfigError",
    "ItemTimeout",
    "MapError",
    "NotPicklable",
    "RemoteError",
    "UnknownBackend",
    "UnsupportedOption",
    "WorkerLost",
]


OUT_OF_MEMORY = 212
"""The exit code of a worker that ends because it has no memory left. No program is known to use it."""


class AnymapError(Exception):
    """The root of every exception that anymap itself raises."""


class ConfigError(AnymapError, ValueError):
    """A setting has a wrong name, type or value; the message says where it was found."""


class UnknownBackend(AnymapError, LookupError):
    """No backend goes by this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        super().__init__(name, self.known)

    def __str__(self) -> str:
        from anymap._hints import did_you_mean_backend  # noqa: PLC0415 - each worker imports this module, and seldom needs that

        return f"no backend is called {self.name!r}.{did_you_mean_backend(self.name, self.known)} There are: {', '.join(self.known)}."


class BackendUnavailable(AnymapError, ImportError):
    """The backend is known, but what it runs on is not installed."""

    def __init__(self, backend: str, reason: str, install: str) -> None:
        self.backend = backend
        self.reason = reason
        self.install = install
        super().__init__(backend, reason, install)

    def __str__(self) -> str:
        return f"backend {self.backend!r} cannot be used here: {self.reason}. Install it with: {self.install}"


class BackendConnectionError(AnymapError, ConnectionError):
    """The engine could not be reached, or was lost; the message names its address."""


class UnsupportedOption(AnymapError, ValueError):
    """This backend cannot do what was asked; the message names backends that can."""


class WorkerLost(AnymapError):
    """The worker that ran an item died, and the item was not to be run again.

    ``exitcode`` is what the operating system told: negative for a signal, ``None`` where it is not known.
    """

    def __init__(self, message: str, exitcode: int | None = None) -> None:
        self.message = message
        self.exitcode = exitcode
        super().__init__(message, exitcode)

    def __str__(self) -> str:
        return f"{self.message} ({describe_exit(self.exitcode)})"


class ItemTimeout(AnymapError, TimeoutError):
    """One attempt of one item took longer than ``timeout`` seconds."""


class NotPicklable(AnymapError, TypeError):
    """A function, an argument or a result cannot be sent to another process.

    The message says which of the three, the type, and where in the object the fault lies.
    """


class RemoteError(AnymapError):
    """Stands in for an exception of a worker that cannot be rebuilt here.

    ``type_name`` is its qualified name, ``message`` its text, ``traceback`` what the worker would have printed.
    """

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        self.type_name = type_name
        self.message = message
        self.traceback = traceback
        super().__init__(type_name, message, traceback)

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class MapError(AnymapError, ExceptionGroup):
    """Items failed in a map that ran with ``on_error="group"`` or passed ``max_failures``.

    ``exceptions`` are those of the items that failed, in the order of the input, and last the input's own, if it raised.
    ``split``, ``subgroup`` and ``except*`` give errors of this class, with the failures that belong to them.

    A map that passed ``max_failures`` was ended early. Its ``results`` go as far as the input was read, each in its
    item's place, also with ``ordered=False`` or ``on_error="skip"``; items that were not finished have a
    :class:`concurrent.futures.CancelledError` there. Such an item may have been started.
    """

    results: Sequence[Any]
    """What succeeded, with the exception in the place of each item that failed; empty if the map was ``lazy``, as the
    results have been handed out."""
    failures: Sequence[Any]
    """The :class:`~anymap.Failure` of each item that failed, in the order of the input."""

    def __new__(
        cls,
        message: str,
        exceptions: Sequence[Exception],
        results: Sequence[Any] = (),
        failures: Sequence[Any] = (),
    ) -> Self:
        self = super().__new__(cls, message, exceptions)
        self.results = results
        self.failures = failures
        return self

    def __init__(self, *args: Any) -> None:
        # ExceptionGroup reads its arguments in __new__; here they would only be checked again.
        pass

    def derive(self, excs: Sequence[Exception]) -> MapError:  # type: ignore[override]
        kept = set(map(id, excs))
        failures = [failure for failure in self.failures if id(failure.exception) in kept]
        return MapError(self.message, excs, self.results, failures)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.exceptions, self.results, self.failures)


def describe_exit(exitcode: int | None) -> str:
    """Say an exit code as a person would: ``killed by SIGKILL``, ``exit code 3``."""
    if exitcode is None:
        return "exit code unknown"
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        return f"killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"killed by signal {-exitcode}"
