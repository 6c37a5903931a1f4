"""Events that a map sends, and what shows them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from anymap.progress.events import (
    BY_DEFAULT,
    Advanced,
    Event,
    Finished,
    ItemDone,
    ItemFailed,
    ItemRetried,
    ItemStarted,
    ItemTimedOut,
    LogRecord,
    Sink,
    Started,
    TaskProgress,
    WorkerDied,
    WorkerStarted,
)

if TYPE_CHECKING:
    from anymap.progress._bar import BarSink
    from anymap.progress._emitter import Emitter
    from anymap.progress._jsonl import JsonLinesSink
    from anymap.progress._log import LogSink
    from anymap.progress._resolve import ProgressOption, resolve
    from anymap.progress._rich import RichSink

__all__ = [
    "BY_DEFAULT",
    "Advanced",
    "BarSink",
    "Emitter",
    "Event",
    "Finished",
    "ItemDone",
    "ItemFailed",
    "ItemRetried",
    "ItemStarted",
    "ItemTimedOut",
    "JsonLinesSink",
    "LogRecord",
    "LogSink",
    "ProgressOption",
    "RichSink",
    "Sink",
    "Started",
    "TaskProgress",
    "WorkerDied",
    "WorkerStarted",
    "resolve",
]

_LATER = {
    "BarSink": "anymap.progress._bar",
    "Emitter": "anymap.progress._emitter",
    "JsonLinesSink": "anymap.progress._jsonl",
    "LogSink": "anymap.progress._log",
    "ProgressOption": "anymap.progress._resolve",
    "RichSink": "anymap.progress._rich",
    "resolve": "anymap.progress._resolve",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
