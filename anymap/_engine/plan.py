"""What one map is to do: decided before anything starts, and never changed."""

from __future__ import annotations

import random
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from anymap._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anymap._config.layers import Config
    from anymap._host.live_messages import Told
    from anymap._propagate.environment_settings import EnvironmentSettings
    from anymap.backends.base import Backend
    from anymap.progress.events import Sink

OnError = Literal["raise", "return", "skip", "group"]


@dataclass(frozen=True, slots=True)
class Retry:
    """When and how often to try a failed item again; ``pmap(..., retries=Retry(3, backoff=1.0))``.

    >>> Retry(2, on=ConnectionError).delay(ConnectionError("reset"), 1)
    0.0
    """

    times: int
    """Attempts after the first; 0 or more."""
    on: type[Exception] | tuple[type[Exception], ...] = Exception
    """Only these are tried again; a lost worker is a :class:`~anymap.WorkerLost`, a late item an ``ItemTimeout``."""
    backoff: float = 0.0
    """Seconds before the second attempt; each further one waits twice as long."""
    jitter: float = 0.0
    """Up to so many seconds more, at random, so that retries do not come all at once."""

    def __post_init__(self) -> None:
        if not isinstance(self.times, int) or isinstance(self.times, bool) or self.times < 0:
            raise ConfigError(f"times must be a number of attempts, 0 or more, not {self.times!r}")
        for kind in self.on if isinstance(self.on, tuple) else (self.on,):
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise ConfigError(f"on must be a type of exception or a tuple of them, not {self.on!r}")
        for name, seconds in ("backoff", self.backoff), ("jitter", self.jitter):
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
                raise ConfigError(f"{name} must be a number of seconds, 0 or more, not {seconds!r}")

    def delay(self, exc: Exception, attempts: int) -> float | None:
        """Return after how many seconds to try again, ``attempts`` having failed; ``None``: not at all."""
        if attempts > self.times or not issubclass(type(exc), self.on):
            return None
        return float(self.backoff * 2 ** (attempts - 1) + random.uniform(0, self.jitter))  # noqa: S311


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One map's arguments, with every default filled in."""

    func: Callable[..., Any]
    star: bool
    """Rows are tuples from several iterables."""
    prompt: bool
    """The iterables are containers: pulling from them takes no time and waits for nothing."""
    backend: Backend
    workers: int | None
    ordered: bool
    lazy: bool
    on_error: OnError
    max_failures: int | float | None
    """A count, or a share of the total as a float below 1."""
    retry: Retry
    timeout: float | None
    chunksize: int | None
    window: int | None
    total: int | None
    desc: str | None
    sinks: tuple[Sink, ...] = field(default=())
    listeners: Mapping[str, Callable[[Told], object]] = field(default_factory=dict)
    """What is called with the live messages of items, by topic; see ``_in_worker.tell``."""
    seed: int | None = None
    config: Config
    """The settings that hold."""
    environment_settings: EnvironmentSettings
    """What workers take over of the caller's environment."""
    context: Context = field(default_factory=copy_context)
    """The caller's context variables: what is called on other threads, sinks and handlers of logs, finds them there."""

    @property
    def depth(self) -> int:
        """How many maps this one runs inside of."""
        return self.config.depth

    @property
    def show_items(self) -> bool:
        """An item's ``repr`` may stand in notes and messages."""
        return bool(self.config.value("show_items"))

    @property
    def settings(self) -> Mapping[str, str]:
        """Where each setting came from, by its name; for the sinks."""
        return {name: origin for name, (_, origin) in self.config.all().items()}
