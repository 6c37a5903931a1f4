"""``anymap demo``: the same real work on any backend, timed, with a digest that shows the answers to be the same.

What the workers run stands at the top level of this module, so that a worker of any backend finds it by import.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import shutil
import sys
import sysconfig
import textwrap
import time
import tokenize
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anymap
from anymap._cli._table import table
from anymap._config import layers
from anymap._host import cpus
from anymap.progress import Finished, Started

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anymap import BackendInfo
    from anymap.progress import Event

__all__ = ["add_to", "count_tokens", "wait_and_add"]

NOT_PYTHON = "(file that cannot be tokenised)"
"""Counted in the place of the tokens of such a file: the tests of the standard library bring a few."""


def count_tokens(path: Path) -> Counter[str]:
    """Count the tokens of one source file by kind."""
    try:
        with path.open("rb") as source:
            return Counter(tokenize.tok_name[token.type] for token in tokenize.tokenize(source.readline))
    except (SyntaxError, tokenize.TokenError, UnicodeDecodeError):
        return Counter([NOT_PYTHON])


def wait_and_add(number: int, *, seconds: float, constant: int) -> int:
    """Wait, then add a constant: the item that costs time and no CPU."""
    time.sleep(seconds)
    return number + constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Something to be mapped on one backend after the other."""

    title: str
    unit: str
    func: Callable[[Any], Any]
    items: Sequence[Any]
    baseline: bool
    """Is serial fast enough to be run first, for the others to be compared with?"""
    answer: Callable[[Sequence[Any]], Any]
    """Makes of the results what the digest is taken from."""
    tell: Callable[[Any], str]
    """Says the answer in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of one backend's turn."""

    backend: str
    workers: int = 0
    start_up: float = 0.0
    """Seconds until the first item began."""
    seconds: float = 0.0
    """Seconds from then on."""
    answer: Any = None
    error: Exception | None = None

    @property
    def digest(self) -> str:
        """Return twelve hexadecimal digits that are the same for the same answer, here and anywhere."""
        return hashlib.blake2b(json.dumps(self.answer).encode(), digest_size=6).hexdigest()


def stdlib(limit: int | None) -> Work:
    """Tokenise the source files of the running Python's standard library."""
    paths = source_files()[:limit]
    # Reads each file once, so that the backend that comes first does not pay for a disk that is still cold.
    size = sum(len(path.read_bytes()) for path in paths)
    version = ".".join(map(str, sys.version_info[:3]))
    return Work(
        title=f"Tokenise {len(paths):,} source files of Python {version}, {size / 1e6:.1f} MB",
        unit="files",
        func=count_tokens,
        items=paths,
        baseline=True,
        answer=_sum_up,
        tell=_tell_tokens,
    )


def sleep(limit: int | None) -> Work:
    """Wait 5 ms and add a constant, 10,000 times."""
    count = 10_000 if limit is None else limit
    return Work(
        title=f"Wait 5 ms and add a constant, {count:,} times",
        unit="items",
        func=functools.partial(wait_and_add, seconds=0.005, constant=1),
        items=range(count),
        baseline=False,
        answer=list,
        tell=lambda answer: f"The sum is {sum(answer):,}.",
    )


def source_files() -> list[Path]:
    """List the standard library's source files, without what is installed beside them, in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    own = [entry for entry in root.iterdir() if entry.name not in {"site-packages", "dist-packages"}]
    found = [*root.glob("*.py"), *(path for entry in own if entry.is_dir() for path in entry.rglob("*.py"))]
    return sorted(path for path in found if path.is_file() and os.access(path, os.R_OK))


def _sum_up(counters: Sequence[Counter[str]]) -> list[tuple[str, int]]:
    return sorted(sum(counters, Counter[str]()).items())


def _tell_tokens(answer: list[tuple[str, int]]) -> str:
    counts = Counter(dict(answer))
    unreadable = counts.pop(NOT_PYTHON, 0)
    chief = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common(5))
    files = "1 file" if unreadable == 1 else f"{unreadable} files"
    rest = f"; {files} cannot be tokenised, which is counted, too" if unreadable else ""
    return f"{counts.total():,} tokens ({chief} ...){rest}."


WORKS: dict[str, Callable[[int | None], Work]] = {"stdlib": stdlib, "sleep": sleep}


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``anymap demo`` with its options."""
    parser = commands.add_parser(
        "demo",
        help="run the same work on one backend or on all, and compare",
        description="Runs real work on a backend and shows how long it took and that the answer is the same. "
        "'stdlib' counts the tokens of every source file of Python's standard library; 'sleep' waits 5 ms and adds "
        "a constant, 10,000 times. 'start-up' is what passes until the first item begins, and no part of 'seconds'.",
        epilog="The exit status is 0 if every backend that ran gave the same answer, 1 if one failed or differed, "
        "2 for a backend that is not known or not installed.",
    )
    parser.add_argument("work", nargs="?", choices=WORKS, default="stdlib", help="what to do (default: stdlib)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--backend", default="processes", metavar="NAME", help="where to run it (default: processes)")
    where.add_argument("--all", action="store_true", help="run it on every backend there is here, serial first")
    parser.add_argument("--workers", metavar="N", help="how many workers, or a share such as 50%%")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N items")
    parser.add_argument(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        help="run it on serial first, to tell the speed-up (default: for stdlib, but not for sleep)",
    )
    parser.add_argument(
        "--bar",
        action=argparse.BooleanOptionalAction,
        help="show a bar (default: on a terminal)",
    )
    parser.set_defaults(run=_run)


def _positive(text: str) -> int:
    if not text.isdecimal() or (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return number


def _run(options: argparse.Namespace) -> int:
    workers = cpus.count_workers(options.workers, "--workers")
    work = WORKS[options.work](options.limit)
    backends, missing = _backends(options, work)
    _print(f"{work.title}.")
    runs = [_take_turn(work, backend, workers, options.bar) for backend in backends]
    print(_figures(work, runs))
    _tell(work, runs, missing)
    return _verdict(runs)


def _backends(options: argparse.Namespace, work: Work) -> tuple[list[str], list[BackendInfo]]:
    """Return the names to run on, in order, and the backends that would have run but are not here."""
    infos = {info.name: info for info in anymap.available_backends()}
    if (said := layers.current().force_backend) is not None:
        forced: str = said.value
        print(f"ANYMAP_FORCE_BACKEND={forced} is set, and beats every other choice.")
        return [_usable(forced, infos)], []
    if options.all:
        here = [name for name, info in infos.items() if info.available]
        return _serial_first(here), [info for info in infos.values() if not info.available]
    chosen = [_usable(options.backend, infos)]
    baseline = work.baseline if options.baseline is None else options.baseline
    return _serial_first(chosen) if baseline else chosen, []


def _usable(name: str, infos: dict[str, BackendInfo]) -> str:
    if name not in infos:
        raise anymap.UnknownBackend(name, infos)
    if not infos[name].available:
        raise anymap.BackendUnavailable(name, infos[name].reason, infos[name].install)
    return name


def _serial_first(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(["serial", *names]))


def _take_turn(work: Work, backend: str, workers: int | None, bar: bool | None) -> Run:
    ends = _Ends()
    # A narrow bar says what it runs on only where that is its name.
    desc = backend if _columns() < _NARROW else None
    begin = time.perf_counter()
    try:
        results = anymap.pmap(work.func, work.items, backend=backend, workers=workers, desc=desc, progress=[bar, ends])
    except Exception as error:  # noqa: BLE001 - it is shown in the table, and the other backends have their turn
        return Run(backend=backend, error=error)
    seconds = time.perf_counter() - begin
    return Run(
        backend=backend,
        workers=ends.workers,
        start_up=ends.start_up,
        seconds=seconds - ends.start_up,
        answer=work.answer(results),
    )


_NARROW = 60
"""Columns."""


class _Ends:
    """A sink that notes how many workers a map has, and how long they took to start."""

    wants = frozenset({Started, Finished})

    def __init__(self) -> None:
        self.workers = 0
        self.start_up = 0.0

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, Started):
            self.workers = event.workers
        elif isinstance(event, Finished):
            self.start_up = event.start_up


def _figures(work: Work, runs: Sequence[Run]) -> str:
    """Set the runs in a table or, where there is no room for that, in a few lines each."""
    head = ["backend", "workers", "start-up", "seconds", f"{work.unit}/s", "speed-up", "digest"]
    serial = next((run.seconds for run in runs if run.backend == "serial" and not run.error), None)
    rows = [_row(run, len(work.items), serial) for run in runs]
    wide = table(head, rows, right=head[1:6])
    if max(map(len, wide.splitlines())) <= _columns():
        return wide
    return "\n".join(_lines(head, row) for row in rows)


def _row(run: Run, count: int, serial: float | None) -> list[str]:
    if run.error:
        return [run.backend, f"failed: {type(run.error).__name__}"]
    faster = f"{serial / run.seconds:.2f}" if serial else "-"
    times = [f"{run.start_up:.2f}", f"{run.seconds:.2f}"]
    return [run.backend, str(run.workers), *times, f"{count / run.seconds:,.0f}", faster, run.digest]


def _lines(head: Sequence[str], row: Sequence[str]) -> str:
    if len(row) < len(head):
        return " ".join(row)
    return "\n".join([row[0], *(f"  {name:<9}{cell:>14}" for name, cell in zip(head[1:], row[1:], strict=True))])


def _print(text: str) -> None:
    """Print a paragraph that fits the terminal."""
    print(textwrap.fill(text, max(_columns() - 1, 20)), flush=True)


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _tell(work: Work, runs: Sequence[Run], missing: Sequence[BackendInfo]) -> None:
    answers = [run.answer for run in runs if not run.error]
    for answer in answers[:1]:
        _print(work.tell(answer))
    for info in missing:
        _print(f"Not run: {info.name}, for {info.reason}; {info.install}")


def _verdict(runs: Sequence[Run]) -> int:
    failed = [run for run in runs if run.error]
    for run in failed:
        print(f"anymap: {run.backend} failed:", file=sys.stderr)
        traceback.print_exception(run.error)
    if differ := len({run.digest for run in runs if not run.error}) > 1:
        print("anymap: the answers of the backends differ", file=sys.stderr)
    return 1 if failed or differ else 0
