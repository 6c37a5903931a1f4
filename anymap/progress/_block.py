from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class BlockProgress:
    """A ``progress`` that holds for all maps of a block together, with what the block is called and its number of items."""

    def __init__(self, progress: Any, desc: str | None, total: int | None) -> None:
        self.progress = progress
        self.desc = desc
        self.total = total
        self._shown: Any = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return repr(self.progress)

    def shown_by(self, make: Callable[[BlockProgress], Any]) -> Any:
        """Return what shows the maps: ``make`` makes it for the first one."""
        with self._lock:
            if self._shown is None:
                self._shown = make(self)
            return self._shown

    def close(self) -> None:
        """Show the end of the block."""
        if self._shown is not None:
            self._shown.finish()
