"""Calls that type checkers must reject: those marked, and no other. Checked by tests/test_typing.py, never run."""

# mypy: disable-error-code=empty-body
# pyright: strict
from __future__ import annotations

from typing import assert_type

from anymap import Executor, MapIterator, Pool, Retry, available_backends, failure, pmap, register


def one(a: int) -> str: ...
def two(a: int, b: str) -> bytes: ...
def three(a: int, b: str, c: bytes) -> float: ...
def event(a: int, b: int) -> None: ...


class NoBackend: ...


ints = [1, 2]
strings = ["a", "b"]
blobs = [b"a", b"b"]

# The function and its items.
pmap()  # error
pmap(one)  # error
pmap(ints, one)  # error
pmap(one, 1)  # error
pmap(one, None)  # error
pmap(one, strings)  # error
pmap(one, ints, ints)  # error
pmap(one, ints, strings, blobs)  # error
pmap(two, ints)  # error
pmap(two, strings, ints)  # error
pmap(two, ints, ints)  # error
pmap(two, ints, strings, blobs)  # error
pmap(three, ints, strings)  # error
pmap(three, ints, strings, strings)  # error
pmap(three, ints, strings, blobs, 1)  # error
pmap(lambda a: a.upper(), ints)  # error
pmap(func=one, a=ints)  # error

# Keywords.
pmap(one, ints, worker=2)  # error
pmap(one, ints, ints, ints, ints, worker=2)  # error
pmap(one, ints, lazzy=True)  # error
pmap(one, ints, num_cpus=2)  # error
pmap(one, ints, backend=1)  # error
pmap(one, ints, backend=NoBackend())  # error
pmap(one, ints, backend=NoBackend)  # error
pmap(one, ints, workers=0.5)  # error
pmap(one, ints, ordered="yes")  # error
pmap(one, ints, lazy="yes")  # error
pmap(one, ints, lazy=None)  # error
pmap(one, ints, prefer="serial")  # error
pmap(one, ints, require="sharedmem")  # error
pmap(one, ints, progress=1)  # error
pmap(one, ints, progress=event)  # error
pmap(one, ints, desc=1)  # error
pmap(one, ints, total="2")  # error
pmap(one, ints, on_error="ignore")  # error
pmap(one, ints, on_error=None)  # error
pmap(one, ints, lazy=True, on_error="ignore")  # error
pmap(one, ints, max_failures=0.05)  # error
pmap(one, ints, retries="3")  # error
pmap(one, ints, timeout="1 s")  # error
pmap(one, ints, chunksize=1.5)  # error
pmap(one, ints, window="10")  # error
pmap(one, ints, lazy=True, window="10")  # error


def known_when_it_runs(name: str, flag: bool | None) -> None:
    pmap(one, ints, on_error=name)  # error
    pmap(one, ints, prefer=name)  # error
    pmap(one, ints, lazy=flag)  # error


# What comes back.
assert_type(pmap(one, ints), list[int])  # error
assert_type(pmap(one, ints), MapIterator[str])  # error
assert_type(pmap(one, ints, lazy=True), list[str])  # error
assert_type(pmap(one, ints, on_error="return"), list[str])  # error
next(pmap(one, ints))  # error
pmap(one, ints, lazy=True)[0]  # error
pmap(one, ints, on_error="return")[0].upper()  # error
narrow: MapIterator[str] = pmap(one, ints, lazy=True, on_error="return")  # error

# What is around it.
Retry()  # error
Retry("3")  # error
Retry(3, on="OSError")  # error
Retry(3, 1.0)  # error
Retry(3).times = 4  # error
failure("ValueError")  # error
index = failure(ValueError()).index  # error
available_backends("serial")  # error
register("mine")  # error
register("mine", NoBackend)  # error
register("mine", "package:Mine", requires="package")  # error
Pool(2, "threads")  # error
Pool(2, chunksize=1)  # error
Executor(2, "threads")  # error
