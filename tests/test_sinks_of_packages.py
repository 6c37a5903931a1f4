"""Sinks that installed packages announce: found by name, imported when asked for, never in the place of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import anymap
from anymap import ConfigError, pmap
from anymap.progress import Finished, LogSink, resolve
from anymap.progress._announced import announced

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = """
seen = []

class Tally:
    def __call__(self, event):
        seen.append(event)

class Late:
    def __init__(self):
        raise OSError("no display here")

def nothing():
    return None

Log = Tally
"""
POINTS = """
[anymap.sinks]
tally = sinklib:Tally
late = sinklib:Late
nothing = sinklib:nothing
absent = sinklib_that_is_not_there:Sink
log = sinklib:Log
none = sinklib:Log
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have a package that announces sinks; give the folder that it is in."""
    (tmp_path / "sinklib.py").write_text(SOURCE)
    info = tmp_path / "sinklib-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sinklib\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    announced.cache_clear()
    yield tmp_path
    announced.cache_clear()
    sys.modules.pop("sinklib", None)


def test_a_sink_is_found_by_the_name_that_its_package_gives_it() -> None:
    assert pmap(abs, [-1, -2], backend="serial", progress="tally") == [1, 2]
    last = sys.modules["sinklib"].seen[-1]
    assert isinstance(last, Finished)
    assert last.done == 2


def test_the_user_may_ask_for_it_from_outside(package: Path) -> None:
    code = "from anymap import pmap; pmap(abs, [-1], backend='serial'); import sinklib; print(len(sinklib.seen) > 1)"
    path = os.pathsep.join([str(package), str(Path(anymap.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "ANYMAP_PROGRESS": "tally"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("True\n", "")


def test_nobody_takes_the_place_of_ours() -> None:
    (sink,) = resolve("log")
    assert isinstance(sink, LogSink)
    assert resolve("none") == []
    assert "sinklib" not in sys.modules


def test_the_names_are_listed_where_another_is_not_known() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'tally'\?.* 'late', 'nothing', 'tally'"):
        resolve("taly")
    assert "sinklib" not in sys.modules


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("late", "sinklib:Late of the package sinklib cannot be made: OSError: no display here"),
        ("absent", "cannot be made: ModuleNotFoundError: No module named 'sinklib_that_is_not_there'"),
        ("nothing", "is no callable that takes an event, but None"),
    ],
)
def test_one_that_is_broken_is_said_to_be(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"progress='{name}': the sink at .*{said}"):
        pmap(abs, [-1], backend="serial", progress=name)
