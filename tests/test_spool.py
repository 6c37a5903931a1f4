"""Folders for large data, and their removal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anymap import _spool

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(_spool, "_base", lambda: str(tmp_path))
    monkeypatch.setattr(_spool, "_folders", {})
    monkeypatch.setattr(_spool, "_locks", {})
    yield tmp_path
    _spool.remove_own()


def owner(base: Path) -> subprocess.Popen[str]:
    """Start a process that has a folder in ``base`` and waits."""
    code = f"from anymap import _spool; _spool._base = lambda: {str(base)!r}; print(_spool.make_folder(), flush=True); input()"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def aged(folder: Path) -> Path:
    os.utime(folder, (0, 0))
    return folder


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        assert process.stdout is not None
        left = aged(Path(process.stdout.readline().strip()).parent)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert left.is_dir()
        _spool.make_folder()
        assert not left.exists()


def test_what_a_living_process_has_is_left_alone(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        assert process.stdout is not None
        theirs = aged(Path(process.stdout.readline().strip()).parent)
        _spool.make_folder()
        assert theirs.is_dir()
        process.communicate("\n")
        assert not theirs.exists(), "it takes its folder away itself, at exit"


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    others = [aged(tmp_path / name) for name in ("anymap", "anymap-notes", f"anymap-{os.getuid() + 1}-1-abc") if
              (tmp_path / name).mkdir() is None]  # fmt: skip
    _spool.make_folder()
    assert all(folder.is_dir() for folder in others)


def test_the_folder_comes_again_when_somebody_has_removed_it(tmp_path: Path) -> None:
    first = Path(_spool.make_folder())
    _spool.remove_folder(str(first.parent))
    assert Path(_spool.make_folder()).is_dir()
    _spool.remove_own()
    assert list(tmp_path.iterdir()) == []
