"""Where in the caller's code a map was asked for."""

from __future__ import annotations

import sys


def callers_level() -> int:
    """Return the ``stacklevel`` at which a warning points at the line outside this package that asked for the map."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("anymap."):
        level, frame = level + 1, frame.f_back
    return level
