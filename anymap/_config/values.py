"""A value, and who says so."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias


class Value(NamedTuple):
    value: Any
    origin: str
    """Where it stands, as the user would look for it: a variable, a file and line, a line of code."""


Layer: TypeAlias = dict[str, Value]
"""What one place says, by the names of settings; options of a backend as ``backends.dask.address``."""
