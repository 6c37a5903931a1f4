"""Settings of the interpreter that a program makes by a call, and that hold for all of its process.

Not that of :func:`threading.stack_size`, which cannot be read without being changed.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

try:
    import _locale  # the public module takes longer to import than a small map to run
except ImportError:
    _locale = None  # type: ignore[assignment]

_TYPES = "LC_CTYPE="
_loading_flags = getattr(sys, "getdlopenflags", lambda: None)


class Settings(NamedTuple):
    """What is set, in a form that is short to send."""

    recursion_limit: int
    digits: int
    switch_interval: float
    writes_no_bytecode: bool
    bytecode_folder: str | None
    loading_flags: int | None
    locale: str | None


def current() -> Settings:
    """Return what is set now."""
    return Settings(
        sys.getrecursionlimit(),
        sys.get_int_max_str_digits(),
        sys.getswitchinterval(),
        sys.dont_write_bytecode,
        sys.pycache_prefix,
        _loading_flags(),
        _read_locale(),
    )


def change(wanted: Settings) -> None:
    """Set what is set otherwise now."""
    now = current()
    if now == wanted:
        return
    sys.setrecursionlimit(wanted.recursion_limit)
    sys.set_int_max_str_digits(wanted.digits)
    sys.setswitchinterval(wanted.switch_interval)
    sys.dont_write_bytecode = wanted.writes_no_bytecode
    sys.pycache_prefix = wanted.bytecode_folder
    if wanted.loading_flags is not None:
        sys.setdlopenflags(wanted.loading_flags)
    if wanted.locale is not None and now.locale != wanted.locale:
        _write_locale(wanted.locale)


def _read_locale() -> str | None:
    # Without the module nothing has set it since, and to ask for it takes as long as for all others.
    return _ask_for_locale() if "locale" in sys.modules else _first_locale


def _ask_for_locale() -> str | None:
    if _locale is None:
        return None
    whole: str = _locale.setlocale(_locale.LC_ALL)
    first, _, others = whole.partition(";")
    # That by which Python begins, in short: it goes with each task.
    return first if first.startswith(_TYPES) and f"{others};".count("=C;") == others.count("=") else whole


_first_locale = _ask_for_locale()


def _write_locale(name: str) -> None:
    if name.startswith(_TYPES) and ";" not in name:
        _locale.setlocale(_locale.LC_ALL, "C")
        _locale.setlocale(_locale.LC_CTYPE, name.removeprefix(_TYPES))
    else:
        _locale.setlocale(_locale.LC_ALL, name)
