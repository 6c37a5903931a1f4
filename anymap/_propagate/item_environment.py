"""What of the caller's environment items find where they run: context, logging, output, random numbers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._propagate import log_records, process_logging

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap._propagate.environment_settings import EnvironmentSettings
    from anymap._worker.context import TaskContext
    from anymap.backends.base import Backend

_AS_IT_IS = contextlib.nullcontext()


class Environment(NamedTuple):
    """Goes with each task of a map. Where there is nothing of a kind, that costs nothing."""

    backend: str
    seed: int | None = None
    logging: bytes | None = None
    """What the worker's logging has to be like; ``None``: as it is."""
    is_shared: bool = False
    """Others use the worker too: its logging is the caller's for the items alone."""
    context: Any = None
    """Values of context variables, packed unless memory is shared."""
    output: str = "inherit"

    def settle(self) -> None:
        """Make the worker's process what the caller's is. Before anything of the caller's is loaded there."""
        if self.logging is not None and not self.is_shared:
            process_logging.apply(self.logging)

    def over(self, place: TaskContext) -> contextlib.AbstractContextManager[None]:
        """Enclose all that is done for a chunk, the loading of the function too."""
        if self.logging is None or not self.is_shared:
            return _AS_IT_IS
        from anymap._propagate import shared_logging  # noqa: PLC0415 - as with _context

        return shared_logging.applied(self.logging, place)

    def around(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``func`` as items are to find it."""
        self.settle()  # what came with it may have brought classes of warnings
        if self.context is not None:
            from anymap._propagate import context as _context  # noqa: PLC0415 - workers load no more than they need

            func = _context.around(func, self.context)
        if self.output == "keep":
            from anymap._propagate import output as _output  # noqa: PLC0415 - as above

            func = _output.keeping(func)
        return func

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """Enclose the running of a chunk."""
        if self.output == "inherit":
            return _AS_IT_IS
        from anymap._propagate import output as _output  # noqa: PLC0415 - as above

        return _output.forwarded() if self.output == "forward" else _output.diverted()


def make(backend: Backend, environment_settings: EnvironmentSettings, seed: int | None) -> Environment | None:
    """Return what goes with a map's tasks, to a backend that is open; ``None``: nothing does."""
    shared, name = backend.traits.shares_memory, backend.name
    wanted = environment_settings.logs == "forward"
    if wanted and shared:
        log_records.annotate_in_memory()
    environment = Environment(
        backend=name,
        seed=seed,
        logging=_logging(backend) if wanted and not shared else None,
        is_shared=wanted and _is_shared(backend) and not shared,
        context=_values(environment_settings.context, shared=shared),
        output=environment_settings.output,
    )
    return environment if wanted or environment != Environment(name) else None


def _logging(backend: Backend) -> bytes:
    from anymap._propagate import logging_setup  # noqa: PLC0415 - the caller's side alone

    return logging_setup.describe(alone=not _is_shared(backend), here=not backend.traits.remote)


def _is_shared(backend: Backend) -> bool:
    """Return whether others may use the workers too."""
    return backend.traits.remote or backend.traits.borrowed


def _values(names: tuple[str, ...], *, shared: bool) -> Any:
    if not names:
        return None
    from anymap._propagate import context as _context  # noqa: PLC0415 - only wanted by few

    found = _context.values(names)
    if not found:
        return None
    return found if shared else _context.pack(found)
