"""What of the caller's surroundings items find where they run: context, logging, output, random numbers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap import _records

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap._surroundings import Surroundings
    from anymap.backends.base import Backend

_AS_IT_IS = contextlib.nullcontext()


class Ambience(NamedTuple):
    """Goes with each task of a map. Where there is nothing of a kind, that costs nothing."""

    backend: str
    seed: int | None = None
    logging: bytes | None = None
    """What the worker's logging has to be like; ``None``: as it is."""
    context: Any = None
    """Values of context variables, packed unless memory is shared."""
    output: str = "inherit"

    def settle(self) -> None:
        """Make the worker's process what the caller's is. Before anything of the caller's is loaded there."""
        if self.logging is not None:
            _records.apply(self.logging)

    def around(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``func`` as items are to find it."""
        self.settle()  # what came with it may have brought classes of warnings
        if self.context is not None:
            from anymap import _context  # noqa: PLC0415 - workers load no more than they need

            func = _context.around(func, self.context)
        if self.output == "keep":
            from anymap import _output  # noqa: PLC0415 - as above

            func = _output.keeping(func)
        return func

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """Enclose the running of a chunk."""
        if self.output == "inherit":
            return _AS_IT_IS
        from anymap import _output  # noqa: PLC0415 - as above

        return _output.forwarded() if self.output == "forward" else _output.diverted()


def make(backend: Backend, surroundings: Surroundings, seed: int | None) -> Ambience | None:
    """Return what goes with a map's tasks, to a backend that is open; ``None``: nothing does."""
    shared, name = backend.traits.shares_memory, backend.name
    wanted = surroundings.logs == "forward"
    if wanted and shared:
        _records.annotate_in_memory()
    ambience = Ambience(
        backend=name,
        seed=seed,
        logging=_logging(backend) if wanted and not shared else None,
        context=_values(surroundings.context, shared=shared),
        output=surroundings.output,
    )
    return ambience if wanted or ambience != Ambience(name) else None


def _logging(backend: Backend) -> bytes:
    from anymap import _logging_setup  # noqa: PLC0415 - the caller's side alone

    traits = backend.traits
    return _logging_setup.describe(alone=not (traits.remote or traits.borrowed), here=not traits.remote)


def _values(names: tuple[str, ...], *, shared: bool) -> Any:
    if not names:
        return None
    from anymap import _context  # noqa: PLC0415 - only wanted by few

    found = _context.values(names)
    if not found:
        return None
    return found if shared else _context.pack(found)
