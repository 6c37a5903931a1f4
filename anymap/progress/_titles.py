from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anymap.progress.events import TaskProgress

__all__ = ["title"]


def title(task: TaskProgress) -> str:
    """Return what the row of a task is called: one line, below that of its map."""
    return f"  {' '.join((task.desc or '').split()) or f'item {task.index}'}"
