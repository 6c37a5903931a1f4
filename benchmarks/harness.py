"""Rounds in which everybody has a turn: who runs when, in what process, for how long at most."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import select
import signal
import statistics
import struct
import subprocess
import sys
import termios
import threading
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks.workload import Contender, Params, Workload

ROOT = Path(__file__).parents[1]
STARTING = 60.0
"""Seconds that a contender may take to get ready."""

ENOUGH = 100.0
"""Seconds of a contender's runs after which it has no further turns: it is far behind."""
QUALIFYING, FINALISTS = 2, 4
"""After so many rounds only so many of the peers go on, the quickest: the others have shown how far behind they are."""


class Failed(Exception):  # noqa: N818 - it says what became of a contender
    """A contender has no result to show; says why."""


@dataclass
class Record:
    """What one contender has shown."""

    role: str
    seconds: list[float] = field(default_factory=list)
    """One for each round, in their order."""
    cpu: list[float] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    peak: int | None = None
    """Bytes."""
    failed: str | None = None
    """Why it is out."""


def compete(
    workload: Workload,
    contenders: Iterable[Contender],
    params: Params,
    rounds: int,
    seed: int,
    say: Callable[[str], Any],
) -> dict[str, Record]:
    """Run each contender once a round, in an order drawn anew for each; return what each has shown."""
    records = {contender.name: Record(contender.role) for contender in contenders}
    actors: dict[str, Actor] = {}
    chance = random.Random(seed)
    try:
        for number in range(rounds):
            names = [name for name in _in_the_running(records, number) if sum(records[name].seconds) < ENOUGH]
            for name in chance.sample(names, len(names)):
                say(f"{workload.name}: round {number + 1} of {rounds}: {name}")
                _take_turn(workload, name, params, actors, records[name], keep=workload.keep)
        if workload.memory:
            for name in [name for name, record in records.items() if record.failed is None]:
                say(f"{workload.name}: memory: {name}")
                _take_turn(workload, name, params, actors, records[name], keep=False, weigh=True)
    finally:
        for actor in actors.values():
            actor.end()
    return records


def _in_the_running(records: dict[str, Record], number: int) -> list[str]:
    """Return who has a turn in a round: all who have not failed, later all but the slower peers."""
    able = [name for name, record in records.items() if record.failed is None]
    if number < QUALIFYING:
        return able
    peers = [name for name in able if records[name].role not in {"anymap", "reference"}]
    slower = sorted(peers, key=lambda name: statistics.median(records[name].seconds))[FINALISTS:]
    return [name for name in able if name not in slower]


def _take_turn(
    workload: Workload,
    name: str,
    params: Params,
    actors: dict[str, Actor],
    record: Record,
    *,
    keep: bool,
    weigh: bool = False,
) -> None:
    try:
        if name not in actors:
            actors[name] = Actor(workload, name, params)
        (_weigh if weigh else _time)(actors[name], record)
    except Failed as exc:
        record.failed = str(exc)
    if name in actors and (record.failed is not None or not keep):
        actors.pop(name).end()


def _weigh(actor: Actor, record: Record) -> None:
    actor.ask("warm")
    with gauge.PeakMemory(actor.pid) as memory:
        actor.ask("run")
    record.peak = memory.peak


def _time(actor: Actor, record: Record) -> None:
    actor.ask("warm")
    before = gauge.cpu_seconds(actor.pid)
    shown = actor.ask("run")
    record.cpu.append(round(gauge.cpu_seconds(actor.pid) - before, 3))
    record.seconds.append(shown["seconds"])
    for figure, value in shown["figures"].items():
        record.figures.setdefault(figure, []).append(value)
    if not actor.ask("check")["right"]:
        raise Failed("gave a wrong answer")


class Actor:
    """A process that waits to be told to run its contender, on a terminal of its own."""

    def __init__(self, workload: Workload, contender: str, params: Params) -> None:
        self._patience = workload.patience
        orders, self._orders = os.pipe()
        self._reports, reports = os.pipe()
        self._terminal = Terminal()
        command = [sys.executable, "-m", "benchmarks.stage", workload.name, contender, json.dumps(vars(params))]
        self._process = subprocess.Popen(
            [*command, str(orders), str(reports)],
            cwd=ROOT,
            pass_fds=(orders, reports),
            stdin=subprocess.DEVNULL,
            stdout=self._terminal.inner,
            stderr=self._terminal.inner,
            start_new_session=True,
        )
        for fd in (orders, reports, self._terminal.inner):
            os.close(fd)
        self._text = b""
        self.pid = self._process.pid
        try:
            self._hear(STARTING)
        except Failed:
            self.end()
            raise

    def ask(self, order: str) -> dict[str, Any]:
        """Have it do something; return what it reports. Raises ``Failed`` if that takes too long or cannot be."""
        os.write(self._orders, f"{order}\n".encode())
        return self._hear(self._patience)

    def _hear(self, patience: float) -> dict[str, Any]:
        while b"\n" not in self._text:
            if not select.select([self._reports], [], [], patience)[0]:
                raise Failed(f"did not end within {patience:.0f} s")
            if not (data := os.read(self._reports, 65536)):
                raise Failed(f"broke off: {self._terminal.last_words()}")
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def end(self) -> None:
        """Let it put its things away, and then end all that is left of it."""
        members = gauge.tree(self.pid)
        os.close(self._orders)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for process in members:
            with suppress(gauge.psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        os.close(self._reports)
        self._terminal.close()


class Terminal:
    """A terminal that somebody looks at: bars are drawn as for a user."""

    def __init__(self) -> None:
        self._outer, self.inner = pty.openpty()
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self._seen: deque[str] = deque(maxlen=20)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def last_words(self) -> str:
        """Return the last line that says something."""
        self._thread.join(1)
        lines = "".join(self._seen).replace("\r", "\n").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "without a word")

    def close(self) -> None:
        self._thread.join(1)
        os.close(self._outer)

    def _read(self) -> None:
        with suppress(OSError):  # nobody has it open any more
            while data := os.read(self._outer, 65536):
                self._seen.append(data.decode(errors="replace"))


def results(workload: Workload, params: Params, records: dict[str, Record]) -> dict[str, Any]:
    """Return all numbers of a workload as they are kept in a file."""
    return {
        "params": {name: value for name, value in vars(params).items() if name != "turns_per_second"},
        "contenders": {name: asdict(record) for name, record in records.items()},
        "title": workload.title,
    }
