"""What a worker tells of single items, where a sink wants to know: that one begins, and how long it took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from anymap._host.live_messages import ITEM
from anymap._in_worker.tell import tell
from anymap._worker.context import task_context
from anymap._worker.set_up import worker_name

if TYPE_CHECKING:
    from collections.abc import Callable


class Watched:
    """A map's function, and a word on each call of it."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func

    def __call__(self, *row: Any) -> Any:
        place = task_context.get()
        assert place is not None  # noqa: S101 - a chunk is being run
        position = place.position()
        tell(ITEM, worker_name(place.spec))
        began = time.monotonic()
        try:
            return self._func(*row)
        finally:
            place.durations[position] = time.monotonic() - began
