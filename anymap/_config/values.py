"""A value, and who says so."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from anymap._config import checks
from anymap._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


class Value(NamedTuple):
    value: Any
    origin: str
    """Where it stands, as the user would look for it: a variable, a file and line, a line of code."""


Layer: TypeAlias = dict[str, Value]
"""What one place says, by the names of settings; options of a backend as ``backends.dask.address``."""


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


def block_progress(progress: Any, desc: str | None, total: int | None, where: str) -> BlockProgress | None:
    """Return what is shown of a block; ``None`` where it leaves that open.

    Raises:
        ConfigError: ``desc`` or ``total`` are given, and ``progress`` is not.
    """
    checks.text(f"{where}: desc", desc)
    if total is not None:
        checks.whole(f"{where}: total", total)
    if progress is not None:
        return BlockProgress(progress, desc, total)
    if desc is not None or total is not None:
        raise ConfigError(f"{where}: desc and total are for the bar that progress= asks for: give progress='auto', too")
    return None
