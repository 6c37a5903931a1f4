"""What holds, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anymap._config import files, layers
from anymap._config.settings import SETTINGS
from anymap._errors import AnymapError
from anymap._plan.selection import selection

if TYPE_CHECKING:
    from typing import TextIO

    from anymap._config.layers import Config


def explain(file: TextIO | None = None) -> None:
    """Print where a map would run here and now, and every setting with its value and where that comes from.

    It is printed to stdout, or to ``file``.

    Raises:
        TypeError: ``file`` cannot be written to.

    >>> import anymap
    >>> with anymap.using(backend="threads", workers=2):
    ...     anymap.explain()  # doctest: +ELLIPSIS
    A map runs here on: threads, 2 workers: using() at ...
    <BLANKLINE>
    setting ... value ... from
    backend ... 'threads' ... using() at ...
    """
    if file is not None and not hasattr(file, "write"):
        raise TypeError(f"explain() takes an open file, or nothing, not {file!r}")
    config = layers.current()
    runs, values = _outcome()
    print(f"A map runs here on: {runs}\n", file=file)
    rows = [("setting", "value", "from"), *settings(config, values)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}", file=file)


def settings(config: Config, defaults: dict[str, object]) -> list[tuple[str, str, str]]:
    """Return every setting's name, value and origin, as text; ``defaults`` of those that are not set."""
    layer = config.all()
    if (forced := layer.get("force_backend")) is not None:
        layer["backend"] = forced
    names = [*SETTINGS, *sorted(name for name in layer if name.startswith("backends."))]
    rows = [(name, _shown(layer[name].value, defaults.get(name)), layer[name].origin) for name in names]
    if (profile := layer.get("profile")) is not None:
        rows.append(("profile", repr(profile.value), profile.origin))
    return [*rows, ("file", repr(files.read().path or None), "")]


def _shown(value: object, default: object) -> str:
    return repr(default if value is None else value)


def _outcome() -> tuple[str, dict[str, object]]:
    """Say what will run and what chose it; and return the backend and the number of workers, as far as they are known."""
    try:
        found = selection()
    except AnymapError as exc:
        return f"nothing: {exc}", {}
    return str(found), {"backend": found.backend, "workers": found.workers}
