"""The file of events: whole lines, whatever happens."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from anymap import ConfigError, pmap, track
from anymap.progress import LogRecord, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from anymap.backends.base import Backend


def read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def fail_at_two(x: int) -> int:
    if x == 2:
        raise ValueError("two")
    return sum(track([x]))


def test_every_event_of_a_map_is_a_line_with_its_fields(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    pmap(fail_at_two, range(4), backend=backend, workers=2, on_error="skip", desc="four", progress=f"jsonl:{path}")
    lines = read(path)
    assert (lines[0]["event"], lines[-1]["event"]) == ("started", "finished")
    assert (lines[0]["desc"], lines[0]["total"], lines[0]["backend"]) == ("four", 4, backend.name)
    by_name = {name: [line for line in lines if line["event"] == name] for name in {line["event"] for line in lines}}
    assert sorted(line["index"] for line in by_name["item_started"]) == [0, 1, 2, 3]
    assert sorted(line["index"] for line in by_name["item_done"]) == [0, 1, 3]
    [failed] = by_name["item_failed"]
    assert (failed["index"], failed["error"]) == (2, {"type": "ValueError", "message": "two"})
    assert {"worker_started", "task_progress"} <= set(by_name)
    assert (lines[-1]["done"], lines[-1]["failed"], lines[-1]["complete"]) == (4, 1, True)
    assert len({line["map"] for line in lines}) == 1
    assert all(abs(line["time"] - time.time()) < 600 for line in lines)


def test_maps_at_the_same_time_share_a_file_and_can_be_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    maps = [
        threading.Thread(
            target=pmap, args=(str, range(50)), kwargs={"backend": "threads", "workers": 2, "progress": f"jsonl:{path}"}
        )
        for _ in range(4)
    ]
    for each in maps:
        each.start()
    for each in maps:
        each.join()
    lines = read(path)
    names = {line["map"] for line in lines}
    assert len(names) == 4
    for name in names:
        indexes = [line["index"] for line in lines if line["map"] == name and line["event"] == "item_done"]
        assert sorted(indexes) == list(range(50))


def test_a_crash_leaves_a_file_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    program = f"""
import os, signal
from anymap import pmap
def crash(x):
    if x == 30:
        while sum('"item_done"' in line for line in open({str(path)!r})) < 20:
            pass
        os.kill(os.getppid(), signal.SIGKILL)
    return x
pmap(crash, range(100), backend="processes", workers=1, chunksize=5, progress="jsonl:{path}")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=False)
    assert ran.returncode == -9
    lines = read(path)
    assert lines[0]["event"] == "started"
    done = [line["index"] for line in lines if line["event"] == "item_done"]
    # Not in the order of the input: two threads launch chunks, and the second may be quicker.
    assert len(done) == len(set(done)) >= 20
    assert 30 not in done


def test_a_log_record_is_its_logger_level_and_text(tmp_path: Path) -> None:
    [sink] = resolve(f"jsonl:{tmp_path}/run.jsonl")
    from anymap.progress import Started

    sink(Started(desc=None, total=1, backend="serial", workers=1))
    record = logging.LogRecord("mine", logging.INFO, __file__, 1, "%d things", (3,), None)
    sink(LogRecord(record=record, elapsed=0.5))
    line = read(tmp_path / "run.jsonl")[-1]
    assert (line["event"], line["logger"], line["level"], line["message"]) == (
        "log_record", "mine", "INFO", "3 things",
    )  # fmt: skip


def test_the_environment_can_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_PROGRESS", f"jsonl:{tmp_path}/run.jsonl")
    pmap(str, [1], backend="serial")
    assert read(tmp_path / "run.jsonl")[-1]["event"] == "finished"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_may_not_be_written_to_is_an_error_before_the_map_starts(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.touch(0o400)
    with pytest.raises(ConfigError, match="cannot be written to"):
        pmap(str, [1], backend="serial", progress=f"jsonl:{path}")
