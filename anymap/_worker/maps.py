"""What a worker keeps of maps between their chunks: the function, the classes, the status board."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._host import forks, status_board
from anymap._serialize import object_table, packing

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap._serialize.object_table import ObjectTable
    from anymap._worker.protocol import MapSpec, TaskData

_KEPT_MAPS = 4
"""How many maps a worker remembers the function of. Several may take turns on a shared worker."""


class KeptMap(NamedTuple):
    """What a worker keeps of one map."""

    func: Callable[..., Any]
    classes: ObjectTable
    board: status_board.Buffer | None


_maps: OrderedDict[str, KeptMap] = OrderedDict()
_boards: OrderedDict[str, status_board.Buffer] = OrderedDict()
_lock = forks.Lock()


def find(task: TaskData) -> KeptMap:
    """Return what this worker keeps of a task's map, loaded now if it has not been."""
    spec = task.spec
    with _lock:
        kept = _maps.get(spec.map_id)
        if kept is not None:
            _maps.move_to_end(spec.map_id)
    if kept is None:
        kept = _load(spec, task.classes)
        with _lock:
            _maps[spec.map_id] = kept
            while len(_maps) > _KEPT_MAPS:
                _maps.popitem(last=False)
    kept.classes.blobs.update(task.classes)
    return kept


def _load(spec: MapSpec, blobs: dict[int, bytes]) -> KeptMap:
    object_table.forget_before_a_map()
    classes = object_table.receiver_table(spec.map_id)
    classes.blobs.update(blobs)
    func = packing.unpack_function(spec.function, classes)
    return KeptMap(func, classes, attached(spec.board) if spec.board else None)


def attached(path: str) -> status_board.Buffer:
    """Return the board at ``path``. Maps that follow each other share one."""
    with _lock:
        board = _boards.get(path)
        if board is None:
            board = _boards[path] = status_board.attach(path)
            while len(_boards) > _KEPT_MAPS:
                _boards.popitem(last=False)
    return board


def serves() -> bool:
    """Tell whether this process works for maps of another one."""
    # An engine of the caller's may have workers in the caller's process.
    return not all(map(object_table.is_from_here, list(_maps)))
