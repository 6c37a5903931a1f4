"""Workers that died: at which item they were, and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anymap._errors import ItemTimeout, WorkerLost
from anymap._host import memory, status_board
from anymap._serialize import failures

if TYPE_CHECKING:
    from anymap._engine.ledger import Chunk, Counts
    from anymap._engine.plan import Plan
    from anymap._host.status_board import Mark


class Deaths:
    """What one map knows of its dead workers. Used under the dispatcher's lock."""

    def __init__(self, plan: Plan) -> None:
        self.killed: set[int] = set()
        """Workers that were to be killed for an item that was out of time."""
        self._plan = plan
        self._known: set[int] = set()

    def running_position(self, chunk: Chunk, mark: Mark, dead: Any) -> int | None:
        """Return where a lost chunk was: -1 if none of its items can be to blame, ``None`` if that is not known."""
        if self._plan.backend.traits.remote:
            if chunk.expired is None:
                return None
            return chunk.expired if mark.position == chunk.expired else -1
        if dead is not None and mark.pid not in dead:
            return -1
        if chunk.expired != mark.position and mark.pid in self.killed:
            # What was out of time ended just before its worker was killed for it, and what came after it is not to blame.
            return -1
        return mark.position

    def error(self, chunk: Chunk, position: int, mark: Mark, lost: BaseException) -> Exception:
        """Return the error of the item that a worker was at when it was ``lost``."""
        name = failures.item_name(chunk.start + position, chunk.rows[position], shown=self._plan.show_items)
        if chunk.expired == position:
            return ItemTimeout(f"{name} took longer than timeout={self._plan.timeout:g} s")
        dead = getattr(lost, "dead", None) or {}
        exitcode = dead.get(mark.pid, next(iter(dead.values()), None))
        if mark == status_board.UNTOUCHED and not self._plan.backend.traits.remote:
            return WorkerLost(
                f"workers end before they begin {name}, again and again: {lost}{memory.explain(exitcode)}", exitcode
            )
        return WorkerLost(f"the worker that ran {name} died: {lost}{memory.explain(exitcode)}", exitcode)

    def count(self, dead: Any, counts: Counts) -> dict[int, int | None] | None:
        """Count the dead; return those that were not known as dead, with their exit codes; ``None`` if that is not known."""
        if dead is None:
            counts.lost += 1
            return None
        new = {pid: exitcode for pid, exitcode in dead.items() if pid not in self._known}
        self._known.update(new)
        counts.lost += len(new)
        return new
