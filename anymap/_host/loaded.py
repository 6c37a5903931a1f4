"""What loaded modules have, read without asking them.

A program may put anything in ``sys.modules``: objects whose attributes raise, modules that load when they are first asked for
something, ``None``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def variables(name: Any) -> dict[str, Any]:
    """Return what the module that is loaded under a name has; nothing where there is none."""
    return dictionary(sys.modules.get(name))


def dictionary(module: Any) -> dict[str, Any]:
    """Return what a module has; nothing of what is none."""
    if not issubclass(type(module), ModuleType):
        return {}
    found: dict[str, Any] = ModuleType.__getattribute__(module, "__dict__")
    return found


def attribute(module: str, name: str) -> Any:
    """Return what a loaded module has under a name, or makes when asked for it by its own ``__getattr__``; else ``None``."""
    found = variables(module)
    if name in found or "__getattr__" not in found:
        return found.get(name)
    try:
        return found["__getattr__"](name)
    except Exception:  # noqa: BLE001 - it is the module's
        return None
