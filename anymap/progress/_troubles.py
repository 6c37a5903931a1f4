from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anymap.progress.events import Advanced, Finished

__all__ = ["troubles"]


def troubles(event: Advanced | Finished) -> dict[str, int]:
    """Return those of the counts failed, retried, lost that are not zero."""
    counts = {"failed": event.failed, "retried": event.retried, "lost": event.lost}
    return {what: count for what, count in counts.items() if count}
