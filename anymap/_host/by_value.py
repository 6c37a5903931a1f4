"""cloudpickle whose code objects keep the file they are from.

From 3.1.3 on cloudpickle sends all code as that of ``<dynamic-code>``. Tracebacks, warnings and log records of
functions that travel by value, those of scripts and notebooks, have to name the caller's file.
"""

from __future__ import annotations

import io
from types import CodeType
from typing import Any

import cloudpickle


def _reduce_code(code: CodeType) -> tuple[Any, ...]:
    _, arguments = _reduce(code)
    return _from_file, (arguments, code.co_filename)


def _from_file(arguments: tuple[Any, ...], file: str) -> CodeType:
    return CodeType(*arguments).replace(co_filename=file)


_reduce = cloudpickle.Pickler.dispatch_table[CodeType]


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A ``cloudpickle.Pickler`` whose code objects keep the file they are from."""

    dispatch_table = cloudpickle.Pickler.dispatch_table.new_child({CodeType: _reduce_code})


def dumps(value: Any) -> bytes:
    """Pickle ``value`` as ``cloudpickle.dumps`` does."""
    file = io.BytesIO()
    Pickler(file, protocol=5).dump(value)
    return file.getvalue()
