"""A value, and where it was set."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from anymap._config import checks
from anymap._errors import ConfigError
from anymap.progress._block import BlockProgress


class Value(NamedTuple):
    value: Any
    origin: str
    """Where it stands, as the user would look for it: a variable, a file and line, a line of code."""


Layer: TypeAlias = dict[str, Value]
"""What one place says, by the names of settings; options of a backend as ``backends.dask.address``."""


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
