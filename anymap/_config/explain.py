"""What holds, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anymap._config import files, layers
from anymap._config.settings import SETTINGS

if TYPE_CHECKING:
    from typing import TextIO


def explain(file: TextIO | None = None) -> None:
    """Print every setting, its value here and now, and where that comes from: to stdout, or to ``file``.

    >>> import anymap
    >>> with anymap.using(backend="serial"):
    ...     anymap.explain()  # doctest: +ELLIPSIS
    setting ... value ... from
    backend ... 'serial' ... using() at ...
    """
    rows = [("setting", "value", "from"), *settings()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}", file=file)


def settings() -> list[tuple[str, str, str]]:
    """Return every setting's name, value and origin, as text."""
    layer = layers.current().all()
    if (forced := layer.get("force_backend")) is not None:
        layer["backend"] = forced
    names = [*SETTINGS, *sorted(name for name in layer if name.startswith("backends."))]
    rows = [(name, repr(layer[name].value), layer[name].origin) for name in names]
    if (profile := layer.get("profile")) is not None:
        rows.append(("profile", repr(profile.value), profile.origin))
    return [*rows, ("file", repr(files.read().path or None), "")]
