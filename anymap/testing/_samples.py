"""What is mapped in the exam: functions, classes and errors of a module that can be imported wherever anymap can."""

from __future__ import annotations

import os
import signal
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from anymap._in_worker.task_progress import track
from anymap._map import pmap

if TYPE_CHECKING:
    from collections.abc import Callable

ORIGIN = os.getpid()
"""The process that imported this module: a fork of it still says so."""
request: ContextVar[str | None] = ContextVar("request", default=None)
"""Something that the caller sets, and items may see."""


def identity(x: Any) -> Any:
    return x


def square(x: int) -> int:
    return x * x


def double(x: Any) -> Any:
    return x + x


def nothing(x: object) -> None:  # noqa: ARG001
    return None


def pack(*values: Any) -> tuple[Any, ...]:
    return values


def error_as_value(x: int) -> int | ValueError:
    return ValueError(x) if x % 2 else x


def sum_of_squares(x: int) -> int:
    """Map inside of a map."""
    return sum(pmap(square, range(x)))


def sum_of_tracked(x: int) -> int:
    """Show how far it is."""
    return sum(track(range(x)))


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


class Place(NamedTuple):
    """Where something ran."""

    pid: int
    thread: int
    origin: int


def where(x: object) -> Place:  # noqa: ARG001
    return Place(os.getpid(), threading.get_ident(), ORIGIN)


@dataclass
class Adder:
    """An object that can be called, and has a method."""

    offset: int

    def __call__(self, x: int) -> int:
        return self.offset + x

    def add(self, x: int) -> int:
        return self.offset + x


def make_closure(offset: int) -> Callable[[int], int]:
    def inner(x: int) -> int:
        return offset + x

    return inner


class Demanding(Exception):  # noqa: N818
    """Its constructor wants other arguments than those that an exception keeps."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Unsendable(Exception):  # noqa: N818
    """Holds what cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Farewell(BaseException):
    """Not an ``Exception``: no ``except Exception`` stops it."""


class Fail:
    """A function that raises for some items and returns the others."""

    def __init__(self, kind: type[BaseException], *bad: int) -> None:
        self.kind = kind
        self.bad = bad

    def __call__(self, x: int) -> int:
        if x in self.bad:
            raise self.kind(x, "reason") if self.kind is Demanding else self.kind(f"item {x}")
        return x


class Die:
    """A function that ends its process for one item, as a crash would."""

    def __init__(self, bad: int) -> None:
        self.bad = bad
        self.spared = os.getpid()

    def __call__(self, x: int) -> int:
        if x == self.bad and os.getpid() != self.spared:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        return x


class Sealed:
    """Cannot be pickled."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lock = threading.Lock()


def seal(x: int) -> int | Sealed:
    return Sealed(x) if x == 3 else x


def number_of(x: int | Sealed) -> int:
    return x.number if isinstance(x, Sealed) else x
