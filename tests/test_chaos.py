"""A randomised run: maps drawn by chance, on every backend, whose workers are killed at any moment.

Each map is a :class:`Scenario`, drawn from the seed, the backend and the map's number alone, and is held to what the
builtin ``map`` gives: every result is right, or is an error that names its item and was to be expected. A failure shows
the scenario and the environment that draws it again:

    CHAOS_SEED=7 CHAOS_FIRST=123 CHAOS_MAPS=1 pytest tests/test_chaos.py -k processes

The scenario is the same each time. What happens at which moment is not: workers and killer are real.

Workers are killed while they hold still for it, as they receive an item, run it or send its result (so that the kill is
known to strike there); shortly after such a moment; at any moment, whatever they do; while they idle within a map; and
between two maps. What each of them was doing is read from a mark that it leaves in a file of its own.
"""

from __future__ import annotations

import faulthandler
import gc
import itertools
import multiprocessing
import os
import random
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import psutil
import pytest

import anymap
from anymap import BackendConnectionError, ItemTimeout, MapError, WorkerLost, failure, pmap
from anymap.backends import Dask, Joblib, Pathos, Processes, Serial, Threads
from tests import conftest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from anymap.backends import Backend

SEED = int(os.environ.get("CHAOS_SEED", "0"))
"""0: the backend's own in a short run, another one in each long run."""
FIRST = int(os.environ.get("CHAOS_FIRST", "0"))
MAPS = os.environ.get("CHAOS_MAPS")
"""How many maps on each backend; as many as suit it where this is not set."""

HANGS = 90.0
"""Seconds after which a map does not end any more. The longest take 5."""
CHECK_EVERY = 50
"""So many maps between two looks at whether anything was left behind."""
TO_END = 15.0
"""Seconds in which everything has ended that was told to."""
DEADLINE = 2.0
"""The ``timeout`` of maps with an item that never returns."""


# --- what runs in the workers -------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """The line from the workers to the killer."""

    address: tuple[str, int]
    folder: str
    number: int
    """The map's."""
    caller: int

    def enter(self, phase: str, index: int, *, ask: bool) -> bool:
        """Say what this process does from now on; if it is to ask, wait for leave. Return whether to raise."""
        if os.getpid() != self.caller:
            mark = os.open(f"{self.folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(mark, f"{self.number} {index} {phase}".ljust(40).encode())
            os.close(mark)
        if not ask:
            return False
        with socket.create_connection(self.address, 60.0) as line:
            line.settimeout(None)
            line.sendall(f"{self.number} {index} {phase} {os.getpid()}\n".encode())
            return line.recv(1) == b"!"


class Item:
    """An argument that says when a worker receives it."""

    def __init__(self, line: Line, index: int, payload: bytes, asks: frozenset[str], *, apart: bool) -> None:
        self.line = line
        self.index = index
        self.payload = payload
        self.asks = asks
        self.apart = apart

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"payload": PickleBuffer(self.payload) if self.apart else self.payload}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.line.enter("receiving", self.index, ask="receiving" in self.asks)


class Result:
    """A result that says when a worker sends it."""

    def __init__(self, item: Item, value: int, payload: bytes) -> None:
        self.line = item.line
        self.asks = item.asks
        self.apart = item.apart
        self.index = item.index
        self.value = value
        self.payload = payload

    def __getstate__(self) -> dict[str, Any]:
        if os.getpid() != self.line.caller:
            self.line.enter("sending", self.index, ask="sending" in self.asks)
        return vars(self) | {"payload": PickleBuffer(self.payload) if self.apart else self.payload}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # A copy: what is mapped keeps a file open.
        self.payload = bytes(self.payload)


class Work:
    """The function of a map."""

    def __init__(self, line: Line, scenario: Scenario) -> None:
        self.line = line
        self.raising = scenario.raising
        self.asking = scenario.asking("running")
        self.pause = scenario.pause
        self.result_size = scenario.result_size

    def __call__(self, item: Any, *more: int) -> Any:
        index = item.index if isinstance(item, Item) else item
        refused = self.line.enter("running", index, ask=index in self.asking)
        if refused or index in self.raising:
            raise ValueError(f"chaos {index}")
        if self.pause:
            time.sleep(self.pause)
        value = sum(more, index)
        if isinstance(item, Item):
            value += zlib.crc32(item.payload)
            item = Result(item, value, filling(index + 1, self.result_size))
        else:
            item = (index, value)
        self.line.enter("returned", index, ask=False)
        return item


def filling(index: int, size: int) -> bytes:
    return (index.to_bytes(4, "big") * (size // 4 + 1))[:size]


# --- one map ------------------------------------------------------------------------------------------------------------


class Strike(NamedTuple):
    """Workers that are to be killed at one item."""

    phase: str
    times: int
    fuse: float | None
    """Seconds that the worker goes on meanwhile; ``None``: it holds still until it is dead."""


ALWAYS = 99


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One map, and what happens to it. Times are in seconds, sizes in bytes."""

    number: int
    workers: int
    count: int | None
    """How many items; ``None``: endless."""
    source: str
    star: bool
    """There are two iterables."""
    lazy: bool
    take: int | None
    """Leave a lazy map after so many results."""
    ordered: bool
    on_error: str
    retries: int
    timeout: float | None
    chunksize: int | None
    window: int | None
    objects: bool
    """Items and results are objects; else plain values, which travel in one pickle."""
    apart: bool
    """Their payloads travel outside of the pickle, where they are large."""
    item_size: int
    result_size: int
    pause: float
    """How long each item takes."""
    raising: frozenset[int]
    """Items that raise at each attempt."""
    flaky: dict[int, int]
    """How often items raise before they do not any more."""
    stuck: int | None
    """An item that never returns."""
    strikes: dict[int, Strike]
    shots: tuple[float, ...]
    """When, from the map's start, any worker is killed."""
    siesta: int | None
    """After so many results the caller rests; a worker is killed when all have nothing to do."""
    before: int
    """How many idle workers are killed before the map."""

    def asking(self, phase: str) -> frozenset[int]:
        """Return the items that ask for leave when they enter this phase."""
        asking = {index for index, strike in self.strikes.items() if strike.phase == phase}
        if phase == "running":
            asking |= {*self.flaky, *(() if self.stuck is None else (self.stuck,))}
        return frozenset(asking)

    def reads_all_first(self) -> bool:
        return self.source == "list" and self.count is not None

    def options(self) -> dict[str, Any]:
        names = ("workers", "lazy", "ordered", "on_error", "retries", "timeout", "chunksize", "window")
        return {name: getattr(self, name) for name in names}


class Kind(NamedTuple):
    """A backend in one of its forms."""

    make: Callable[..., Backend]
    maps: tuple[int, int]
    """How many maps a run has, a short one and a long one."""
    workers: tuple[int, ...] = (1, 2, 2, 3)
    kills: bool = True
    keeps_workers: bool = True
    exact: bool = True
    """It is known which item a dead worker was at."""
    certain: bool = False
    """A death touches nothing but what ran in that worker, so that item has had its attempt."""
    settling: float = 0.0
    """Seconds from its start before which a worker is spared: its nanny would give it up for good."""
    alone_here: bool = False
    """A single worker is the caller's own thread."""
    starts: bool = True
    """A worker may be killed before it has run anything."""
    seed: int = 51
    """The short run's: one that draws kills of every sort, in maps that end after them, whatever happens when."""


def joblib_multiprocessing() -> Backend:
    with joblib.parallel_config("multiprocessing"):
        return Joblib()


KINDS = {
    "serial": Kind(Serial, (30, 800), kills=False, alone_here=True),
    "threads": Kind(Threads, (30, 800), kills=False),
    "processes": Kind(Processes, (24, 1000), certain=True, seed=2548),
    "forks": Kind(partial(Processes, start_method="fork"), (0, 400), keeps_workers=False, certain=True),
    "pathos": Kind(Pathos, (24, 600), keeps_workers=False, seed=393),
    "joblib": Kind(Joblib, (6, 400), alone_here=True, seed=625),
    "multiprocessing": Kind(joblib_multiprocessing, (0, 300), keeps_workers=False, alone_here=True),
    "dask": Kind(Dask, (5, 400), workers=(2,), starts=False, seed=1226),
    "cluster": Kind(Dask, (0, 200), workers=(2,), exact=False, starts=False, settling=2.0),
}


def draw(seed: int, name: str, number: int) -> Scenario:
    """Draw a map. Whatever is drawn depends on the arguments alone."""
    rng = random.Random(f"{seed} {name} {number}")
    kind = KINDS[name]
    workers = rng.choice(kind.workers)
    here = kind.alone_here and (workers == 1 or not kind.kills)
    objects = rng.random() < 0.75
    item_size, result_size = (draw_size(rng) if objects else 0 for _ in range(2))
    pause = rng.choice([0.0, 0.0, 0.001, 0.005])
    most = min(300, int(8e6 / (item_size + result_size + 1)) + 1, int(0.4 / pause) if pause else 300)
    count = rng.choice([0, 1, 2, rng.randint(3, 12), rng.randint(3, 60), rng.randint(3, 300)])
    count = min(count, most)
    lazy = rng.random() < 0.5
    take = rng.randint(0, count) if lazy and rng.random() < 0.4 else None
    endless = take is not None and rng.random() < 0.5
    window = rng.choice([None, None, 1, rng.randint(2, 8), rng.randint(9, 60)])
    special = iter(rng.sample(range(count), count))
    stuck = next(special, None) if rng.random() < 0.03 and not here else None
    raising = frozenset(itertools.islice(special, rng.choice([0, 0, 0, 0, 1, 2, count // 4])))
    flaky = {index: rng.randint(1, 2) for index in itertools.islice(special, rng.choice([0, 0, 0, 1, 2]))}
    calm = here or not kind.kills or rng.random() < 0.35
    strikes = {} if calm else draw_strikes(rng, special, objects=objects, poison=not kind.settling)
    shots = () if calm else tuple(rng.uniform(0.0, 0.3) for _ in range(rng.choice([0, 0, 1, 2])))
    siesta = rng.randint(0, count) if lazy and not calm and rng.random() < 0.3 else None
    retries = rng.choice([0, 0, 0, 1, 2])
    if rng.random() < 0.25 and stuck is None:
        retries = sum(min(strike.times, 3) for strike in strikes.values()) + len(shots) + 3
    return Scenario(
        number=number,
        workers=workers,
        count=None if endless else count,
        source=rng.choice(["list", "generator"]),
        star=rng.random() < 0.2,
        lazy=lazy,
        take=take,
        ordered=rng.random() < 0.6,
        on_error=rng.choice(["raise", "return", "return", "skip", "group"]),
        retries=min(retries, 1) if stuck is not None else retries,
        timeout=DEADLINE if stuck is not None else rng.choice([None, None, 60.0]) if not here else None,
        chunksize=rng.choice([None, None, 1, rng.randint(2, 40)]),
        window=window,
        objects=objects,
        apart=rng.random() < 0.5,
        item_size=item_size,
        result_size=result_size,
        pause=pause,
        raising=raising,
        flaky=flaky,
        stuck=stuck,
        strikes=strikes,
        shots=shots,
        siesta=siesta,
        before=rng.choice([0, 0, 0, 1, 2]) if kind.kills and kind.keeps_workers else 0,
    )


def draw_size(rng: random.Random) -> int:
    return rng.choice([0, 10, 10, 2_000, 2_000, 40_000, 70_000, 300_000, 1_000_000])


def draw_strikes(rng: random.Random, special: Iterator[int], *, objects: bool, poison: bool) -> dict[int, Strike]:
    strikes = {}
    for index in itertools.islice(special, rng.choice([1, 1, 2])):
        phase = rng.choice(["receiving", "running", "sending"]) if objects else "running"
        fuse = rng.choice([None, None, rng.uniform(0.0, 0.003)])
        # A poisoned result is not told from bad luck: it would take many deaths.
        deadly = poison and fuse is None and phase != "sending" and rng.random() < 0.2
        strikes[index] = Strike(phase, ALWAYS if deadly else rng.choice([1, 1, 2]), fuse)
    return strikes


# --- the killer ---------------------------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """What a worker was last seen to do."""

    number: int
    index: int
    phase: str


class Kill(NamedTuple):
    how: str
    """``held``, ``fuse``, ``shot``, ``siesta`` or ``between``."""
    pid: int
    held: Mark | None = None
    """What the worker was doing, where it held still."""


class Killer:
    """Hears the workers that ask for leave, lets them go, has them raise, or kills them."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.kills: list[Kill] = []
        """Those of the map under way."""
        self._folder = folder
        self._kind = kind
        self._scenario: Scenario | None = None
        self._visits: Counter[tuple[int, str]] = Counter()
        self._waiting: list[socket.socket] = []
        self._over = threading.Event()
        # Elsewhere it is known by its mark.
        self._spared = {child.pid for child in psutil.Process().children(recursive=True)} if kind.starts else set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="chaos-killer", daemon=True)
        self._thread.start()

    @contextmanager
    def at_work(self, scenario: Scenario) -> Iterator[Line]:
        """Do to a map what its scenario says."""
        self._scenario = scenario
        self._visits.clear()
        self.kills = []
        while self._kind.settling and not all(map(self._is_settled, psutil.Process().children(recursive=True))):
            time.sleep(0.1)
        for _ in range(scenario.before):
            self.shoot("between")
        self._over.clear()
        shooter = threading.Thread(target=self._shoot_at, args=(scenario.shots,), name="chaos-shots", daemon=True)
        shooter.start()
        try:
            yield Line(self._server.getsockname()[:2], str(self._folder), scenario.number, os.getpid())
        finally:
            self._over.set()
            shooter.join()
            self._let_all_go()

    def shoot(self, how: str) -> None:
        """Kill any worker."""
        if workers := self._workers():
            self._kill(random.choice(workers), how)

    def rest(self) -> None:
        """Kill a worker when none has had anything to do for a while."""
        before = None
        while not self._over.wait(0.02) and before != (before := self._marks()):
            pass
        self.shoot("siesta")

    def mark(self, pid: int) -> Mark | None:
        with suppress(FileNotFoundError):
            said = (self._folder / str(pid)).read_text().split()
            # It is empty if the worker has died as it began to write.
            return Mark(int(said[0]), int(said[1]), said[2]) if said else None
        return None

    def close(self) -> None:
        self._closed = True
        with suppress(OSError):
            socket.create_connection(self._server.getsockname()[:2], 1.0).close()
        self._thread.join()
        self._server.close()

    def _marks(self) -> list[Mark | None]:
        return [self.mark(worker.pid) for worker in self._workers()]

    def _workers(self) -> list[psutil.Process]:
        below = [child for child in psutil.Process().children(recursive=True) if child.pid not in self._spared]
        if not self._kind.starts:
            below = [child for child in below if self.mark(child.pid) is not None]
        return [child for child in below if is_worker(child)]

    def _shoot_at(self, moments: Iterable[float]) -> None:
        began = time.monotonic()
        for moment in sorted(moments):
            if not self._over.wait(max(began + moment - time.monotonic(), 0.0)):
                self.shoot("shot")

    def _kill(self, worker: psutil.Process, how: str, held: Mark | None = None) -> None:
        with suppress(psutil.NoSuchProcess):
            if worker.status() != psutil.STATUS_ZOMBIE and self._is_settled(worker):
                worker.kill()
                self.kills.append(Kill(how, worker.pid, held))

    def _is_settled(self, worker: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return time.time() - worker.create_time() >= self._kind.settling
        return True

    def _serve(self) -> None:
        while not self._closed:
            line, _ = self._server.accept()
            line.settimeout(5.0)
            with suppress(OSError), line.makefile() as words:
                if said := words.readline().split():
                    self._hear(line, int(said[0]), int(said[1]), said[2], int(said[3]))
                    continue
            line.close()

    def _hear(self, line: socket.socket, number: int, index: int, phase: str, pid: int) -> None:
        scenario = self._scenario
        if scenario is None or scenario.number != number or self._over.is_set():
            answer(line, b".")
            return
        self._visits[index, phase] += 1
        visit = self._visits[index, phase]
        strike = scenario.strikes.get(index)
        if strike is not None and strike.phase == phase and visit <= strike.times:
            self._strike(line, strike, Mark(number, index, phase), pid)
        elif index == scenario.stuck:
            self._waiting.append(line)
            if self._over.is_set():
                answer(line, b".")
        else:
            answer(line, b"!" if visit <= scenario.flaky.get(index, 0) else b".")

    def _strike(self, line: socket.socket, strike: Strike, mark: Mark, pid: int) -> None:
        with line, suppress(psutil.NoSuchProcess):
            worker = psutil.Process(pid)
            if strike.fuse is None:
                self._kill(worker, "held", mark)
                answer(line, b".")
            else:
                answer(line, b".")
                time.sleep(strike.fuse)
                self._kill(worker, "fuse")

    def _let_all_go(self) -> None:
        for line in self._waiting:
            answer(line, b".")
        self._waiting.clear()


def answer(line: socket.socket, word: bytes) -> None:
    with suppress(OSError):  # it is dead, by another hand
        line.sendall(word)
    line.close()


def is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(process.cmdline())
    return False


# --- running it ---------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What the caller of a map got."""

    results: list[tuple[int | None, Any]] = field(default_factory=list)
    """With their indices, where these were told."""
    error: Exception | None = None
    pulled: int = 0


def run(scenario: Scenario, backend: Backend, killer: Killer) -> Outcome:
    outcome = Outcome()
    with killer.at_work(scenario) as line:
        sources = [items(scenario, line, outcome)]
        if scenario.star:
            sources.append(itertools.count())
        if scenario.reads_all_first():
            sources = [list(itertools.islice(source, scenario.count)) for source in sources]
        try:
            mapped = pmap(Work(line, scenario), *sources, backend=backend, progress=False, **scenario.options())
            if scenario.lazy:
                take(mapped, scenario, outcome, killer)
            else:
                outcome.results = [(None, value) for value in mapped]
        except Exception as exc:  # noqa: BLE001 - what it is will be judged
            outcome.error = exc
    return outcome


def items(scenario: Scenario, line: Line, outcome: Outcome) -> Iterator[Any]:
    may_count = scenario.lazy and not scenario.reads_all_first() and scenario.on_error in {"raise", "return"}
    for index in itertools.count() if scenario.count is None else range(scenario.count):
        outcome.pulled += 1
        if scenario.window is not None and may_count:
            assert outcome.pulled - len(outcome.results) <= scenario.window, "the input was read too far ahead"
        yield item(scenario, line, index)


def item(scenario: Scenario, line: Line, index: int) -> Any:
    if not scenario.objects:
        return index
    strike = scenario.strikes.get(index)
    asks = frozenset({strike.phase} if strike else ())
    return Item(line, index, filling(index, scenario.item_size), asks, apart=scenario.apart)


def take(mapped: Any, scenario: Scenario, outcome: Outcome, killer: Killer) -> None:
    with mapped:
        if scenario.siesta == 0:
            killer.rest()
        for index, value in itertools.islice(mapped.indexed(), scenario.take):
            outcome.results.append((index, value))
            if len(outcome.results) == scenario.siesta:
                killer.rest()


# --- judging it ---------------------------------------------------------------------------------------------------------


def judge(scenario: Scenario, outcome: Outcome, blame: Blame) -> None:
    """Hold what came of a map to what the builtin one gives, and to the kills that struck."""
    results, error = outcome.results, outcome.error
    if isinstance(error, BackendConnectionError) and conftest.COLLECTING_MAY_CRASH and blame.struck_a_cluster():
        # What has been handed out is right all the same, and the next map has another cluster.
        error = None
        scenario = replace(scenario, take=len(results))
    errors: dict[int, Exception] = {}
    if isinstance(error, MapError) and scenario.on_error == "group":
        errors = {index_of(exc): exc for exc in error.exceptions}
        assert [failure.index for failure in error.failures] == sorted(errors)
        if not scenario.lazy:
            results = [(None, value) for value in error.results]
    elif error is not None:
        assert scenario.on_error == "raise", describe(error)
        errors = {index_of(error): error}
    told = [index_of(value) for _, value in results]
    assert all(index in {None, said} for (index, _), said in zip(results, told, strict=True)), "results are mixed up"
    assert len(set(told)) == len(told), "a result came twice"
    assert told == sorted(told) or not scenario.ordered, "results are out of order"
    outcomes = errors | {index_of(value): value for _, value in results}
    for index, value in outcomes.items():
        judge_item(scenario, index, value, blame)
    blame.judge(scenario, [value for value in outcomes.values() if isinstance(value, WorkerLost)])
    if scenario.take is None and not (error is not None and scenario.on_error == "raise"):
        missing = set(range(scenario.count or 0)) - set(outcomes)
        assert scenario.on_error == "skip" or not missing, f"nothing came of {missing}"
        for index in missing:
            assert permitted(scenario, index, blame) - {"value"}, f"item {index} was left out"
    elif scenario.take is not None and error is None and scenario.count is None and scenario.on_error != "skip":
        assert len(results) == scenario.take or scenario.on_error == "group"


def judge_item(scenario: Scenario, index: int, value: Any, blame: Blame) -> None:
    allowed = permitted(scenario, index, blame)
    if not isinstance(value, Exception):
        assert "value" in allowed, f"item {index} has a result, and was to fail: {allowed}"
        assert is_right(scenario, index, value), f"the result of item {index} is wrong"
        return
    found = failure(value)
    assert found is not None, describe(value)
    assert f"item {index} (" in describe(value), f"item {index} is not named: {describe(value)}"
    kinds = {WorkerLost: "lost", ItemTimeout: "timeout", ValueError: "raised"}
    assert kinds.get(type(value)) in allowed, f"item {index} may only be {allowed}: {describe(value)}"
    if type(value) is ValueError:
        assert str(value) == f"chaos {index}"
    assert found.attempts == scenario.retries + 1


def permitted(scenario: Scenario, index: int, blame: Blame) -> set[str]:
    """Return what may become of an item: ``value``, ``raised``, ``lost``, ``timeout``."""
    losses, raises = blame.of(index), scenario.flaky.get(index, 0)
    strike = scenario.strikes.get(index)
    if index in scenario.raising:
        allowed, raises = {"raised"}, ALWAYS
    elif index == scenario.stuck:
        allowed, raises = {"timeout"} if blame.exact else {"timeout", "value"}, ALWAYS
    elif strike is not None and strike.times == ALWAYS:
        allowed = set()
    elif raises > scenario.retries:
        # Its chunk may be lost when it has raised: it runs again, at no cost.
        allowed = {"raised", "value"} if blame.kills else {"raised"}
    elif raises and raises + losses > scenario.retries:
        allowed = {"raised", "value"}
    elif blame.certainly_of(index) > scenario.retries:
        allowed = set()
    else:
        allowed = {"value"}
    return allowed | ({"lost"} if losses and losses + raises > scenario.retries else set())


def index_of(value: Any) -> int:
    """Return which item a result or an error says it belongs to."""
    if isinstance(value, Exception):
        found = failure(value)
        assert found is not None, f"no item's error: {describe(value)}"
        return found.index
    return int(value.index if isinstance(value, Result) else value[0])


def is_right(scenario: Scenario, index: int, value: Any) -> bool:
    number = 2 * index if scenario.star else index
    if not scenario.objects:
        return bool(value == (index, number))
    number += zlib.crc32(filling(index, scenario.item_size))
    return bool(value.value == number and value.payload == filling(index + 1, scenario.result_size))


def describe(exc: BaseException) -> str:
    return "\n".join([f"{type(exc).__name__}: {exc}", *getattr(exc, "__notes__", ())])


class Blame:
    """Which items a map's kills may be the end of."""

    def __init__(self, scenario: Scenario, killer: Killer, kind: Kind) -> None:
        self.exact = kind.exact
        self._certain = kind.certain
        self.kills = [(kill, killer.mark(kill.pid)) for kill in killer.kills if kill.how != "between"]
        self._suspects = [self._suspects_of(scenario, kill, mark) for kill, mark in self.kills]

    def of(self, index: int) -> int:
        """Return how many kills may have struck while this item ran."""
        return sum(suspects is None or index in suspects for suspects in self._suspects)

    def struck_a_cluster(self) -> bool:
        return not self.exact

    def certainly_of(self, index: int) -> int:
        """Return how many kills have struck this item and no other."""
        held = [suspects for (kill, _), suspects in zip(self.kills, self._suspects, strict=True) if kill.held]
        return held.count({index}) if self._certain else 0

    def judge(self, scenario: Scenario, lost: list[WorkerLost]) -> None:
        """A death is the end of one attempt at most."""
        ordinary = [exc for exc in lost if not {index_of(exc)} & {*scenario.raising, *scenario.flaky, scenario.stuck}]
        assert len(ordinary) * (scenario.retries + 1) <= len(self.kills), "more items were lost than workers"

    def _suspects_of(self, scenario: Scenario, kill: Kill, mark: Mark | None) -> set[int] | None:
        """Return the items that it may have been, ``None`` if any."""
        if not self.exact:
            return None
        if kill.held is not None:
            return set() if kill.held.phase == "sending" else {kill.held.index}
        # At the end of a chunk, the next one may have begun.
        if mark is None or mark.number != scenario.number or mark.phase == "sending":
            return None
        return {mark.index, mark.index + 1} if mark.phase == "returned" else {mark.index}


# --- nothing is left ----------------------------------------------------------------------------------------------------


class Footprint(NamedTuple):
    """What this process has."""

    processes: frozenset[int]
    threads: frozenset[str]
    descriptors: int
    files: frozenset[str]

    @classmethod
    def look(cls, of_the_session: Iterable[int]) -> Footprint:
        # Both forget what has ended: the first processes, the second whatever refers to itself.
        multiprocessing.active_children()
        gc.collect()
        spared = [psutil.Process(pid) for pid in of_the_session]
        spared += [child for one in spared for child in one.children(recursive=True)]
        children = set(psutil.Process().children(recursive=True)) - set(spared)
        names = [thread.name for thread in threading.enumerate() if not thread.name.startswith("Dask-Offload")]
        threads = Counter(re.sub(r"\d+", "#", name) for name in names)
        return cls(
            frozenset(child.pid for child in children),
            frozenset(f"{count} {name}" for name, count in threads.items()),
            len(os.listdir("/proc/self/fd")),
            own_files(children),
        )

    def grown(self, before: Footprint) -> list[str]:
        grown = [f"process {pid}: {command(pid)}" for pid in self.processes - before.processes]
        grown += [f"thread {thread}" for thread in self.threads - before.threads]
        grown += [f"file {file}" for file in self.files - before.files]
        if self.descriptors > before.descriptors:
            grown.append(f"{self.descriptors - before.descriptors} file descriptors: {descriptors()}")
        return grown


def own_files(children: Iterable[psutil.Process]) -> frozenset[str]:
    """Return what in the folders for temporary files bears this process's id, but for what each call of joblib's leaves."""
    pids = {os.getpid(), *(child.pid for child in children)}
    named = [(folder, name) for folder in {"/dev/shm", tempfile.gettempdir()} for name in os.listdir(folder)]
    named = [(folder, name) for folder, name in named if not name.startswith("joblib_memmapping_folder")]
    return frozenset(f"{folder}/{name}" for folder, name in named if pids & {*map(int, re.findall(r"\d+", name))})


def descriptors() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return found


def command(pid: int) -> str:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return f"{process.status()} {' '.join(process.cmdline())}"
    return "gone"


def maps_files() -> list[str]:
    """Return what is in this process's folder for large data: what a map has there goes with it."""
    return sorted(conftest.own_files("*/*"))


def assert_none_is_left(look: Callable[[], list[str]]) -> None:
    give_up = time.monotonic() + TO_END
    while (found := look()) and time.monotonic() < give_up:
        time.sleep(0.05)
    if found:
        pytest.fail("\n".join(["left behind:", *found]))


# --- the run ------------------------------------------------------------------------------------------------------------


class Hung(BaseException):
    """No error of the map's."""


@contextmanager
def watched(scenario: Scenario) -> Iterator[None]:
    """Raise, and show what every thread is at, if this takes too long."""

    def interrupt(*_: object) -> None:
        faulthandler.dump_traceback(sys.stderr)
        raise Hung(f"the map did not end within {HANGS:g} s")

    former = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(HANGS, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGUSR1, former)


def run_and_judge(scenario: Scenario, kind: Kind, killer: Killer) -> Counter[str]:
    """Return how many kills struck, by what they struck."""
    with watched(scenario):
        outcome = run(scenario, kind.make(), killer)
    blame = Blame(scenario, killer, kind)
    try:
        judge(scenario, outcome, blame)
    except BaseException as exc:
        exc.add_note(f"kills: {blame.kills}")
        if outcome.error is not None:
            raise exc from outcome.error
        raise
    between = Counter({"between": sum(kill.how == "between" for kill in killer.kills)})
    return between + Counter(f"{kill.how} {mark.phase if mark else 'starting'}" for kill, mark in blame.kills)


def chaos(name: str, kind: Kind, seed: int, maps: int, folder: Path, of_the_session: set[int]) -> None:
    killer = Killer(folder, kind)
    tally: Counter[str] = Counter()
    try:
        warm_up(kind)
        before = Footprint.look(of_the_session)
        for number in range(FIRST, FIRST + maps):
            scenario = draw(seed, name, number)
            try:
                tally += run_and_judge(scenario, kind, killer)
                assert_none_is_left(maps_files)
                if number % CHECK_EVERY == 0 or number + 1 == FIRST + maps:
                    anymap.shutdown()
                    assert_none_is_left(lambda: Footprint.look(of_the_session).grown(before))
            except BaseException as exc:
                exc.add_note(f"CHAOS_SEED={seed} CHAOS_FIRST={number} CHAOS_MAPS=1, {name}: {scenario}")
                raise
    finally:
        killer.close()
    print(f"{maps} maps on {name}, CHAOS_SEED={seed}, kills: {tally.total()} {dict(sorted(tally.items()))}")
    assert_enough_were_killed(kind, tally, 0 if maps < kind.maps[0] else 1 + maps // 60)


def warm_up(kind: Kind) -> None:
    """Have whatever is made once for a program."""
    for _ in range(2):
        assert pmap(abs, range(-9, 0), backend=kind.make(), workers=2) == list(range(9, 0, -1))
        anymap.shutdown()


def assert_enough_were_killed(kind: Kind, tally: Counter[str], least: int) -> None:
    """A run that hardly killed anybody has shown nothing."""
    wanted = [f"held {phase}" for phase in ("receiving", "running", "sending")] if kind.kills else []
    wanted += ["between"] if kind.keeps_workers and kind.kills else []
    assert not {what: tally[what] for what in wanted if tally[what] < least}, tally
    anywhen = sum(count for what, count in tally.items() if what not in wanted)
    assert anywhen >= least or not kind.kills, tally


def named(names: Iterable[str]) -> list[Any]:
    marks = {"forks": "processes", "multiprocessing": "joblib", "cluster": "dask"}
    return [pytest.param(name, marks=getattr(pytest.mark, marks.get(name, name))) for name in names]


@pytest.mark.full
@pytest.mark.parametrize("name", named(name for name, kind in KINDS.items() if kind.maps[0]))
def test_whatever_is_asked_and_whoever_dies_each_item_has_its_result_or_its_error(
    name: str, tmp_path: Path, nothing_left_at_the_end: set[int]
) -> None:
    kind = KINDS[name]
    chaos(name, kind, SEED or kind.seed, int(MAPS or kind.maps[0]), tmp_path, nothing_left_at_the_end)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", named(KINDS))
def test_the_same_for_thousands_of_maps(
    name: str, tmp_path: Path, nothing_left_at_the_end: set[int], request: pytest.FixtureRequest
) -> None:
    kind = KINDS[name]
    if name == "cluster":
        if conftest.COLLECTING_MAY_CRASH:
            pytest.skip("there is nobody to start the scheduler anew")
        kind = kind._replace(make=partial(Dask, scheduler_file=request.getfixturevalue("dask_cluster")))
    seed = SEED or random.SystemRandom().randrange(1, 10**6)
    chaos(name, kind, seed, int(MAPS or kind.maps[1]), tmp_path, nothing_left_at_the_end)
