from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anymap.progress.events import TaskProgress

__all__ = ["title", "what_runs"]


def what_runs(backend: str, workers: int | None) -> str:
    """Return where a map runs, as ``processes, 2 workers``. How many workers there are may not be known."""
    if workers is None or (backend, workers) == ("serial", 1):
        return backend
    return f"{backend}, 1 worker" if workers == 1 else f"{backend}, {workers} workers"


def title(task: TaskProgress) -> str:
    """Return what the row of a task is called: one line, below that of its map."""
    return f"  {' '.join((task.desc or '').split()) or f'item {task.index}'}"
