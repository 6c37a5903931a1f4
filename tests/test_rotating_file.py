"""One log file of many processes: nothing lost, torn or doubled, whoever dies."""

from __future__ import annotations

import contextlib
import gzip
import logging
import logging.config
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

import anymap
from anymap import ConfigError, backends, logs, pmap, using
from anymap.logs import rotating_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anymap.backends.base import Backend

pytestmark = pytest.mark.versions

LINE = re.compile(r"(\d+) (\d+) (\d+) x*")
"""Item, process, number."""


@contextmanager
def logging_to(path: Path, **options: Any) -> Iterator[logging.Handler]:
    logger, handler = logging.getLogger("filed"), rotating_file(path, **options)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        handler.close()


def contents(path: Path) -> list[str]:
    """Return the lines of the file and of all that were rotated away."""
    lines: list[str] = []
    for file in path.parent.glob(f"{path.name}*"):
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as text:
            lines += text.read().splitlines()
    return lines


def write(item: int, count: int, diary: str) -> int:
    """Log ``count`` lines; say in a file of this process's own which have been logged."""
    said = os.open(f"{diary}/{item}-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for number in range(count):
            logging.getLogger("filed.part").info("%d %d %d %s", item, os.getpid(), number, "x" * (number % 150))
            os.write(said, b"%d\n" % number)
    finally:
        os.close(said)
    return item


def said(diary: Path) -> Counter[tuple[int, int, int]]:
    """Return what was logged by all that began to write, before they were killed or came to the end."""
    lines: Counter[tuple[int, int, int]] = Counter()
    for file in diary.iterdir():
        item, pid = map(int, file.name.split("-"))
        lines.update((item, pid, int(number)) for number in file.read_text().splitlines())
    return lines


class Killer(threading.Thread):
    """Kills processes that write, at any moment, until there have been enough."""

    def __init__(self, diary: Path, kills: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._diary = diary
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self._left = kills
        self.killed: set[int] = set()

    def run(self) -> None:
        while self._left and not self._over.wait(self._chance.uniform(0.05, 0.25)):
            writing = {int(file.name.split("-")[1]) for file in self._diary.iterdir()} - self.killed
            if writing:
                victim = self._chance.choice(sorted(writing))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    self.killed.add(victim)
                    self._left -= 1

    def stop(self) -> None:
        self._over.set()
        self.join()


ROTATIONS = [
    pytest.param({"max_bytes": 200_000, "backups": None}, id="size"),
    pytest.param({"when": "S", "backups": None, "compress": True}, id="time"),
]


def prove(backend: Backend, rotation: dict[str, Any], folder: Path, *, items: int, lines: int, kills: int) -> None:
    diary, path = folder / "diary", folder / "logs" / "run.log"
    diary.mkdir()
    path.parent.mkdir()
    killer = Killer(diary, kills, seed=items)
    with logging_to(path, **rotation):
        killer.start()
        try:
            done = pmap(
                lambda item: write(item, lines, str(diary)),
                range(items),
                backend=backend,
                workers=4,
                chunksize=1,
                retries=50,
            )
        finally:
            killer.stop()
    assert done == list(range(items))
    got = Counter(tuple(map(int, match.groups())) for line in contents(path) if (match := LINE.fullmatch(line)))
    expected = said(diary)
    assert expected.total() >= items * lines
    assert not expected - got, "lost"
    # What a process was just writing when it was killed it had not yet said, and may be torn: one line of each.
    unsaid = got - expected
    torn = [line for line in contents(path) if not LINE.fullmatch(line)]
    assert not [line for line in unsaid if expected[line]], "doubled"
    assert unsaid.total() + len(torn) <= len({(item, pid) for item, pid, _ in got}) - items
    assert killer.killed or not kills


@pytest.fixture(
    params=[
        pytest.param("Processes", marks=pytest.mark.processes),
        pytest.param("Pathos", marks=pytest.mark.pathos),
        pytest.param("Joblib", marks=pytest.mark.joblib),
        pytest.param("Dask", marks=pytest.mark.dask),
    ]
)
def local(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Give each of the backends whose workers are processes of this host; dask on a cluster of our own."""
    made: Backend = getattr(backends, request.param)()
    yield made
    if request.param == "Dask":
        anymap.shutdown()


@pytest.mark.full
def test_no_line_is_lost_torn_or_doubled_by_rotations_and_kills(local: Backend, tmp_path: Path) -> None:
    rotation = {"max_bytes": 100_000, "when": "S", "backups": None, "compress": True}
    prove(local, rotation, tmp_path, items=4, lines=1_000, kills=2)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_no_line_is_lost_torn_or_doubled_in_the_long_run(
    local: Backend, rotation: dict[str, Any], tmp_path: Path
) -> None:
    prove(local, rotation, tmp_path, items=40, lines=5_000, kills=20)


def log_three(item: int) -> int:
    for number in range(3):
        logging.getLogger("filed").info("%d %d %d ", item, os.getpid(), number)
    return os.getpid()


def test_each_line_is_in_the_file_once_wherever_the_item_ran(backend: Backend, tmp_path: Path) -> None:
    def log_loud(item: int) -> None:
        logging.getLogger("filed").warning("item %d", item)

    with logging_to(tmp_path / "run.log"):
        pmap(log_loud, range(5), backend=backend, workers=2)
    assert sorted(contents(tmp_path / "run.log")) == [f"item {item}" for item in range(5)]


def test_local_workers_write_themselves_and_other_handlers_still_hear_of_it(local: Backend, tmp_path: Path) -> None:
    class Heard(logging.Handler):
        lines: ClassVar[list[str]] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.lines.append(record.getMessage())

    def sees_its_lines(item: int) -> list[str]:
        logging.getLogger("filed").info("item %d", item)
        return (tmp_path / "run.log").read_text().splitlines()

    heard = Heard()
    logging.getLogger("filed").addHandler(heard)
    try:
        with logging_to(tmp_path / "run.log"):
            (lines,) = pmap(sees_its_lines, range(1), backend=local, workers=2)
    finally:
        logging.getLogger("filed").removeHandler(heard)
    assert lines == contents(tmp_path / "run.log") == heard.lines == ["item 0"]


def test_level_format_and_filters_travel(local: Backend, tmp_path: Path) -> None:
    with logging_to(tmp_path / "run.log") as handler:
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logs.Formatter("%(levelname)s %(anymap_item)s %(message)s"))
        handler.addFilter(lambda record: "secret" not in record.getMessage())

        def logs_all(item: int) -> str:
            for text in ("quiet", "loud", "secret"):
                logging.getLogger("filed").log(logging.INFO if text == "quiet" else logging.ERROR, text)
            return (tmp_path / "run.log").read_text()

        assert pmap(logs_all, range(1), backend=local, workers=2) == ["ERROR 0 loud\n"]
        handler.setLevel(logging.INFO)
        (text,) = pmap(logs_all, range(1), backend=local, workers=2)
    assert text.splitlines() == ["ERROR 0 loud", "INFO 0 quiet", "ERROR 0 loud"]


def test_the_latest_backups_are_kept_by_number(tmp_path: Path) -> None:
    with logging_to(tmp_path / "run.log", max_bytes=10, backups=3):
        for number in range(20):
            logging.getLogger("filed").info("line number %d", number)
    names = sorted(path.name for path in tmp_path.glob("run.log*"))
    assert names == ["run.log", "run.log.1", "run.log.2", "run.log.3"]
    assert [(tmp_path / name).read_text() for name in names] == [
        f"line number {number}\n" for number in (19, 18, 17, 16)
    ]


def test_backups_by_time_bear_the_time_of_their_last_line(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with logging_to(path, when="D", backups=2, compress=True):
        for day in (1, 2, 3, 4):
            logging.getLogger("filed").info("day %d", day)
            moment = time.mktime((2030, 5, day, 12, 0, 0, 0, 0, -1))
            os.utime(path, (moment, moment))
        logging.getLogger("filed").info("today")
    names = sorted(path.name for path in tmp_path.glob("run.log*"))
    assert names == ["run.log", "run.log.2030-05-03.gz", "run.log.2030-05-04.gz"]
    assert gzip.decompress((tmp_path / names[1]).read_bytes()) == b"day 3\n"


@pytest.mark.parametrize("left_by_a_kill", [("1",), ("2",), ("1", "3"), ("1", "1.gz")])
def test_a_rotation_that_was_cut_short_loses_nothing_at_the_next(
    left_by_a_kill: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "run.log"
    for number in left_by_a_kill:
        if number == "1.gz":  # it was packed, and the other form not yet removed
            (tmp_path / "run.log.1.gz").write_bytes(gzip.compress(b"backup 1\n"))
        else:
            (tmp_path / f"run.log.{number}").write_text(f"backup {number}\n")
    with logging_to(path, max_bytes=1, backups=5, compress=True):
        logging.getLogger("filed").info("first")
        logging.getLogger("filed").info("second")
    backups = {f"backup {number.removesuffix('.gz')}" for number in left_by_a_kill}
    assert sorted(contents(path)) == sorted([*backups, "first", "second"])


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("whole\nto")
    with logging_to(tmp_path / "run.log"):
        logging.getLogger("filed").info("next")
    assert (tmp_path / "run.log").read_text().splitlines() == ["whole", "to", "next"]


def test_a_fork_takes_turns_with_its_parent(tmp_path: Path) -> None:
    with logging_to(tmp_path / "run.log", max_bytes=2_000, backups=None):
        forks = [multiprocessing.get_context("fork").Process(target=write_some, args=(n,)) for n in range(3)]
        for fork in forks:
            fork.start()
        write_some(3)
        for fork in forks:
            fork.join()
    assert sorted(contents(tmp_path / "run.log")) == sorted(f"{n} {number}" for n in range(4) for number in range(300))


def write_some(who: int) -> None:
    for number in range(300):
        logging.getLogger("filed").info("%d %d", who, number)


def test_it_is_made_by_dictconfig(tmp_path: Path) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"short": {"()": "anymap.logs.Formatter", "fmt": "%(anymap_item)s %(message)s"}},
            "handlers": {
                "file": {
                    "()": "anymap.logs.rotating_file",
                    "filename": str(tmp_path / "run.log"),
                    "max_bytes": 1_000_000,
                    "formatter": "short",
                }
            },
            "loggers": {"filed": {"handlers": ["file"], "level": "INFO"}},
        }
    )
    logger = logging.getLogger("filed")
    try:
        logger.info("here")
        pmap(log_three, range(1), backend="processes", workers=1)
    finally:
        for handler in logger.handlers[:]:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(logging.NOTSET)
    assert [line.split()[0] for line in contents(tmp_path / "run.log")] == ["-", "0", "0", "0"]


def test_a_setting_adds_it_for_all_that_is_logged(tmp_path: Path) -> None:
    program = """
import logging, sys
from anymap import pmap

def work(item):
    logging.getLogger("work").warning("item %d", item)

if __name__ == "__main__":
    pmap(work, range(2), workers=1)
    logging.getLogger("mine").warning("at the end")
"""
    environment = {**os.environ, "ANYMAP_LOG_FILE": str(tmp_path / "run.log")}
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, env=environment)
    lines = [line.split(" WARNING ")[1] for line in contents(tmp_path / "run.log")]
    assert [re.sub(r" \d+ ", " ", line) for line in lines] == [
        "work [0] item 0",
        "work [1] item 1",
        "mine [-] at the end",
    ]


def test_the_file_is_opened_when_the_map_begins_and_once(tmp_path: Path) -> None:
    before = logging.root.handlers[:]
    try:
        with using(log_file=str(tmp_path / "run.log")):
            lazy = [pmap(abs, range(2), backend="serial", lazy=True) for _ in range(2)]
            assert logging.root.handlers == before
            assert list(tmp_path.iterdir()) == []
        for results in lazy:
            assert list(results) == [0, 1]
            assert len(logging.root.handlers) == len(before) + 1
    finally:
        for handler in logging.root.handlers[len(before) :]:
            logging.root.removeHandler(handler)
            handler.close()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    "value", [5, {"max_bytes": 1}, {"filename": "run.log", "size": 1}, {"filename": "x", "when": "W"}]
)
def test_a_wrong_setting_is_told_with_its_place(value: Any, lazy: bool) -> None:
    with pytest.raises(ConfigError, match="log_file"), using(log_file=value):
        pmap(abs, [1], backend="serial", lazy=lazy)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bytes": -1},
        {"max_bytes": True},
        {"backups": 0},
        {"backups": 1.5},
        {"when": "W"},
        {"when": "0S"},
        {"when": 5},
    ],
    ids=str,
)
def test_a_wrong_argument_is_told(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        rotating_file(tmp_path / "run.log", **wrong)


def test_without_the_library_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "anymap._propagate.rotating", raising=False)
    monkeypatch.setitem(sys.modules, "concurrent_log_handler", None)
    with pytest.raises(ImportError, match=r"anypmap\[logs\]"):
        rotating_file(tmp_path / "run.log")
