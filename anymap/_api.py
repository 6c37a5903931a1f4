"""``pmap``: the face of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from anymap._engine.results import MapIterator, collect
from anymap._engine.loop import Run
from anymap._plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anymap._engine.plan import OnError, Retry
    from anymap.backends.base import Backend
    from anymap.progress import ProgressOption

R = TypeVar("R")


def pmap(
    func: Callable[..., R],
    /,
    *iterables: Iterable[Any],
    backend: str | Backend | None = None,
    workers: int | str | None = None,
    ordered: bool = True,
    lazy: bool = False,
    prefer: Literal["threads", "processes"] | None = None,
    require: Literal["shared_memory"] | None = None,
    progress: ProgressOption = None,
    desc: str | None = None,
    total: int | None = None,
    on_error: OnError = "raise",
    max_failures: int | str | None = None,
    retries: int | Retry = 0,
    timeout: float | None = None,
    chunksize: int | None = None,
    window: int | None = None,
) -> Any:
    """Apply ``func`` to every item, on whatever backend the caller or the user's settings choose.

    Like the builtin ``map``: several iterables are zipped, and the shortest ends it.
    """
    options = {name: value for name, value in locals().items() if name not in ("func", "iterables")}
    plan = make_plan(func, iterables, **options)
    rows = iter(iterables[0]) if len(iterables) == 1 else zip(*iterables, strict=False)
    run = Run(plan, rows)
    return MapIterator(run, plan) if plan.lazy else collect(run, plan)
