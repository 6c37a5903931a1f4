"""Where the caller looks: a terminal, or a notebook."""

from __future__ import annotations

import sys
from typing import Any

from anymap._host import loaded

__all__ = ["beneath", "in_notebook", "on_terminal"]


def on_terminal() -> bool:
    """Say whether stderr goes to a terminal."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, it is closed, or a stand-in that knows no isatty
        return False


def beneath(stream: Any) -> Any:
    """Return the stream that is written to in the end: while items run, another may catch what they print before it."""
    return getattr(stream, "anymap_beneath", stream)


def in_notebook() -> bool:
    """Say whether this process is the kernel of a notebook."""
    get_ipython = loaded.attribute("IPython", "get_ipython")
    shell = get_ipython() if get_ipython is not None else None
    # Colab and Spyder have shells of their own, which derive from this one.
    return any(base.__name__ == "ZMQInteractiveShell" for base in type(shell).__mro__)
