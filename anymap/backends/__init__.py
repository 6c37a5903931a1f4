"""The backends, and what it takes to write one.

Each class is imported when it is first asked for, as is the library it runs on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anymap._host.lifecycle import at_shutdown
    from anymap._worker.channel import Channel, Line
    from anymap._worker.protocol import Answer
    from anymap._worker.task import Task, run_task
    from anymap.backends.base import Backend, ChunkLost, Traits
    from anymap.backends.codec import TaskCodec
    from anymap.backends.dask import Dask
    from anymap.backends.executor import ExecutorBackend
    from anymap.backends.joblib import Joblib
    from anymap.backends.pathos import Pathos
    from anymap.backends.processes import Processes
    from anymap.backends.serial import Serial
    from anymap.backends.threads import Threads

__all__ = [
    "Answer",
    "Backend",
    "Channel",
    "ChunkLost",
    "Dask",
    "ExecutorBackend",
    "Joblib",
    "Line",
    "Pathos",
    "Processes",
    "Serial",
    "Task",
    "TaskCodec",
    "Threads",
    "Traits",
    "at_shutdown",
    "run_task",
]

_classes = ("Serial", "Threads", "Processes", "Pathos", "Joblib", "Dask")
_homes = {
    **dict.fromkeys(("Answer", "Backend", "Channel", "ChunkLost", "Line", "Task", "Traits"), "anymap.backends.base"),
    "ExecutorBackend": "anymap.backends.executor",
    "TaskCodec": "anymap.backends.codec",
    "at_shutdown": "anymap._host.lifecycle",
    "run_task": "anymap._worker.task",
}
"""Where the names are that authors of backends need."""


def __getattr__(name: str) -> Any:
    if name in _homes:
        import importlib  # noqa: PLC0415 - only to ask for one

        value = getattr(importlib.import_module(_homes[name]), name)
        globals()[name] = value
        return value
    if name not in _classes:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from anymap.backends import _registry  # noqa: PLC0415 - as above

    return _registry.find(name.lower())


def __dir__() -> list[str]:
    return sorted(__all__)
