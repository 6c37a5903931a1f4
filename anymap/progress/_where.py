"""Where the caller's eyes are."""

from __future__ import annotations

import sys

__all__ = ["in_notebook", "on_terminal"]


def on_terminal() -> bool:
    """Say whether stderr goes to a terminal."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, it is closed, or a stand-in that knows no isatty
        return False


def in_notebook() -> bool:
    """Say whether this process is the kernel of a notebook."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython is not None else None
    # Colab and Spyder have shells of their own, which derive from this one.
    return any(base.__name__ == "ZMQInteractiveShell" for base in type(shell).__mro__)
