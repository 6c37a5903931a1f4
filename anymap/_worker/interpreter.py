"""Whether the program that workers are started with is a Python, as in an embedded interpreter it often is not."""

from __future__ import annotations

import os
import subprocess
import sys

from anymap._errors import UnsupportedOption
from anymap._host import descendants

FIRST_WORD = 30.0
"""Seconds that an interpreter has to say its version; a host that is very busy takes its time."""
_ASK = "import sys; print(*sys.version_info[:2])"
_EXPECTED = "{} {}".format(*sys.version_info[:2])
_checked: set[str] = set()
"""Those that have answered."""


def checked(executable: str | bytes | None, remedy: str) -> str:
    """Return the path of an interpreter like this one.

    Raises :class:`~anymap.UnsupportedOption`, with the ``remedy``, for any other program and for one that does not answer. A
    program is asked once, and not at all where this process runs it and it is called ``python``.
    """
    path = os.fsdecode(executable or "")
    if path not in _checked:
        fault = _fault(path)
        if fault:
            raise UnsupportedOption(
                f"workers cannot be started: {fault}. {remedy} at the program's start, or use backend 'threads'"
            )
        _checked.add(path)
    return path


def _fault(path: str) -> str:
    if not path:
        return "sys.executable does not say where this Python is"
    return "" if _runs_this_process(path) else _answer_fault(path)


def _runs_this_process(path: str) -> bool:
    try:
        return os.path.basename(path).startswith("python") and os.path.samefile(path, "/proc/self/exe")
    except OSError:  # not on Linux
        return False


def _answer_fault(path: str) -> str:
    command = [path, *subprocess._args_from_interpreter_flags(), "-c", _ASK]  # type: ignore[attr-defined]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as exc:
        return f"{path!r} cannot be run ({exc.strerror})"
    with process:
        try:
            answer, complaint = process.communicate(timeout=FIRST_WORD)
        except subprocess.TimeoutExpired:
            return f"{path!r} has not answered as a Python does within {FIRST_WORD:g} s"
        finally:
            if process.poll() is None:
                descendants.end(process.pid)
    said = (complaint.strip() or answer.strip())[-200:]
    return (
        ""
        if answer.strip() == _EXPECTED
        else f"{path!r} is not this Python {_EXPECTED.replace(' ', '.')}: it says {said!r}"
    )
