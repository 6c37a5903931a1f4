"""The names of other libraries, on anymap's engines. Each module is imported by its own name."""

from __future__ import annotations

__all__: list[str] = []
