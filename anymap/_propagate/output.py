"""What items print: sent to the caller line by line, or kept with the failure of the item."""

from __future__ import annotations

import contextlib
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from anymap._host import forks
from anymap._in_worker import tell
from anymap._worker.context import task_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


OUTPUT = "output"
"""The topic that workers tell of."""

_MOST_KEPT = 64 * 1024
"""Characters that are kept of one item: the last ones."""
_LONGEST_LINE = 64 * 1024
"""Characters after which a line is sent though it has not ended."""
_STREAMS = ("stdout", "stderr")


class _Catch(Protocol):
    """Takes what one item prints."""

    def write(self, stream: str, text: str) -> None: ...


catch: ContextVar[_Catch | None] = ContextVar("anymap_output", default=None)


@contextlib.contextmanager
def forwarded() -> Iterator[None]:
    """Tell the map what is printed in here, line by line."""
    lines = _Lines()
    with diverted():
        token = catch.set(lines)
        try:
            yield
        finally:
            catch.reset(token)
            lines.end()


def keeping(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``func`` so that what it prints is kept with its failure. Goes with :func:`diverted`."""

    def kept_for_failure(*row: Any) -> Any:
        kept = _Kept()
        token = catch.set(kept)
        try:
            return func(*row)
        except BaseException:
            if (place := task_context.get()) is not None and (text := kept.text()):
                place.keep_output(text)
            raise
        finally:
            catch.reset(token)

    return kept_for_failure


class _Lines:
    """Tells the map each line as soon as it has ended, at the latest with the first line of the next item."""

    def __init__(self) -> None:
        self._begun = dict.fromkeys(_STREAMS, "")
        self._item: int | None = None

    def write(self, stream: str, text: str) -> None:
        place = tell.find(OUTPUT)
        item = place.item() if place is not None else None
        if item != self._item:
            self.end()
            self._item = item
        text = self._begun[stream] + text
        end = len(text) if len(text) > _LONGEST_LINE else text.rfind("\n") + 1
        self._begun[stream] = text[end:]
        if end:
            self._send(stream, text[:end])

    def end(self) -> None:
        for stream, text in self._begun.items():
            if text:
                self._begun[stream] = ""
                self._send(stream, f"{text}\n")

    def _send(self, stream: str, text: str) -> None:
        for begin in range(0, len(text), _LONGEST_LINE):
            tell.tell(OUTPUT, (stream, text[begin : begin + _LONGEST_LINE], self._item))


class _Kept:
    """Keeps the last of what an item prints, both streams as they come."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0

    def write(self, stream: str, text: str) -> None:  # noqa: ARG002 - as a terminal shows both
        self._parts.append(text)
        self._size += len(text)
        if self._size > 2 * _MOST_KEPT:
            self._parts = [self.text()]
            self._size = len(self._parts[0])

    def text(self) -> str:
        return "".join(self._parts)[-_MOST_KEPT:]


class _Switch:
    """Stands for ``sys.stdout`` or ``sys.stderr`` while items run: what they write is caught, all else goes on."""

    def __init__(self, stream: str, original: Any) -> None:
        self._stream = stream
        self.anymap_beneath = original

    def write(self, text: str) -> int:
        caught = catch.get()
        if caught is None:
            written: int = self.anymap_beneath.write(text)
            return written
        caught.write(self._stream, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.anymap_beneath, name)


_lock = forks.Lock()
_users = 0


@contextlib.contextmanager
def diverted() -> Iterator[None]:
    """Have what is printed in here pass by the switches."""
    global _users  # noqa: PLW0603 - the streams are the process's
    with _lock:
        _users += 1
        for stream in _STREAMS:
            if not isinstance(getattr(sys, stream), _Switch):
                setattr(sys, stream, _Switch(stream, getattr(sys, stream)))
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            for stream in _STREAMS:
                switch = getattr(sys, stream)
                if not _users and isinstance(switch, _Switch):
                    setattr(sys, stream, switch.anymap_beneath)
