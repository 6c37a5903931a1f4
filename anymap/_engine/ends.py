"""How a map opens and closes its backend, and how one that is left open ends with the program."""

from __future__ import annotations

import atexit
import weakref
from typing import TYPE_CHECKING, Protocol

from anymap import logs
from anymap._engine.refusals import check_timeout, warn_of_forks
from anymap._host import guarded, own_log

if TYPE_CHECKING:
    from anymap._engine.plan import Plan
    from anymap.backends.base import Backend


class Closable(Protocol):
    """A map that may be left open."""

    def close(self) -> None: ...


def open_backend(plan: Plan) -> None:
    """Open the plan's backend and see to it that it can do what is asked of it."""
    logs._open_set_file(plan.config)
    are_known = plan.backend.traits.forks
    warn_of_forks(plan.backend)
    plan.backend.open(plan.workers)
    if not are_known:
        warn_of_forks(plan.backend)
    check_timeout(plan)


def close_backend(backend: Backend, error: BaseException | None, *, complete: bool) -> None:
    """Close a map's backend. What fails in that becomes a note of the ``error`` that ends the map, else it is logged."""
    try:
        backend.close(abandon=not complete)
    except Exception as exc:  # noqa: BLE001 - the backend is a third party's
        message = f"backend {backend.name!r} failed to close"
        if error is None or isinstance(error, GeneratorExit):
            own_log.warning(message, exc_info=exc)
        else:
            guarded.add_note(error, f"anymap: after that, {message}: {guarded.type_and_text(exc)}")


_left_open: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_at_exit(run: Closable) -> None:
    """Have a map that is left open end while the interpreter is still whole: later its threads stand still."""
    _left_open.add(run)
    # Anew, to come before what its backend has asked for.
    atexit.unregister(_close_all)
    atexit.register(_close_all)


def _close_all() -> None:
    for run in list(_left_open):
        run.close()
