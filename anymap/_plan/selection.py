"""Which backend a map would get, without running one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from anymap._config import layers
from anymap._plan import choice
from anymap.backends import _registry

if TYPE_CHECKING:
    from anymap._plan.live import Engine
    from anymap.backends.base import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What :func:`selection` found.

    Attributes:
        backend: The name of the backend.
        workers: How many items it would run at once; ``None`` where only a cluster can tell that.
        traits: What the backend can do, by the names of :class:`anymap.backends.Traits`, as far as that is known before
            it is open; ``False`` are left out.
        reason: What chose the backend: ``"the call"``, ``"the default"``, or the setting, with the place where it is.
    """

    backend: str
    workers: int | None
    traits: dict[str, bool]
    reason: str

    def __str__(self) -> str:
        return f"{self.backend}, {_counted(self.workers)}: {self.reason}"


def _counted(workers: int | None) -> str:
    if workers is None:
        return "the workers of a cluster"
    return f"{workers} worker{'' if workers == 1 else 's'}"


def selection(
    *,
    backend: str | Backend | type[Backend] | Engine | None = None,
    workers: int | str | None = None,
    prefer: Literal["threads", "processes"] | None = None,
    require: Literal["shared_memory"] | None = None,
) -> Selection:
    """Tell on which backend, and on how many workers, a map with these arguments would run here and now.

    Nothing is started, and no cluster is connected to. The arguments mean what they mean to :func:`anymap.pmap`.

    >>> import anymap
    >>> print(anymap.selection(backend="threads", workers=2))
    threads, 2 workers: the call
    >>> with anymap.using(backend="serial"):
    ...     anymap.selection().traits["shares_memory"]
    True

    Raises:
        ConfigError: As for :func:`anymap.pmap`; so do ``UnknownBackend`` and ``BackendUnavailable``.
    """
    return _select(backend, workers, prefer, require)


def _select(backend: Any, workers: Any, prefer: Any, require: Any) -> Selection:
    config = layers.current()
    chosen, reason = choice.choose(config, backend, prefer, require)
    asked = choice.workers(config, workers, chosen)
    return Selection(
        backend=chosen.name,
        workers=chosen.expected_workers(asked),
        traits=_registry._as_dict(chosen.traits),
        reason=reason,
    )
