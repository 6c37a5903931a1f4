"""The standard streams of a program that has none, or has closed them."""

from __future__ import annotations

import io
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES = ("stdout", "stderr")


def unflushable() -> tuple[str, ...]:
    """Return the names of the streams that cannot be flushed, as engines do before they start a process."""
    return tuple(name for name in _NAMES if not _flushes(name))


def _flushes(name: str) -> bool:
    try:
        getattr(sys, name).flush()
    except Exception:  # noqa: BLE001 - None, closed, or a program's own that raises
        return False
    return True


@contextmanager
def replaced(names: tuple[str, ...]) -> Iterator[None]:
    """Have streams in here that can be flushed, in place of those with these ``names``."""
    before = {name: getattr(sys, name) for name in names}
    stand_ins = {name: io.StringIO() for name in names}
    for name in names:
        setattr(sys, name, stand_ins[name])
    try:
        yield
    finally:
        for name in names:
            if getattr(sys, name) is stand_ins[name]:
                setattr(sys, name, before[name])
