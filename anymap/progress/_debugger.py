"""Tells whether a debugger waits for a command in this process: bars must leave its prompt alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["is_at_its_prompt"]

_DISPATCH = frozenset(f"dispatch_{event}" for event in ("line", "call", "return", "exception", "opcode"))
"""The methods of ``bdb.Bdb`` that stop; the last since Python 3.13. pdb and IPython's debugger derive from it."""


def is_at_its_prompt() -> bool:
    """Look through what all threads run."""
    return "bdb" in sys.modules and any(map(_stops, list(sys._current_frames().values())))


def _stops(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _DISPATCH and frame.f_globals.get("__name__") == "bdb":
            return True
        frame = frame.f_back
    return False
