"""Folders for large data, and their removal."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anymap._host import spill

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(spill, "_bases", lambda: [str(tmp_path)])
    monkeypatch.setattr(spill, "_homes", {})
    yield tmp_path
    spill.remove_own()


def owner(base: Path) -> subprocess.Popen[str]:
    """Start a process that has a folder in ``base`` and waits."""
    code = f"from anymap._host import spill; spill._bases = lambda: [{str(base)!r}]; print(spill.make_folder(), flush=True); input()"
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
        spill.make_folder()
        assert not left.exists()


def test_a_sweep_goes_on_though_another_one_is_quicker_at_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        aged_folder = tmp_path / f"anymap-{spill._user()}-{number}"
        aged_folder.mkdir()
        aged(aged_folder)
    look, swept_by_another = os.stat, []

    def look_too_late(path: str, **how: Any) -> os.stat_result:
        if not swept_by_another:
            swept_by_another.append(path)
            os.rmdir(path)
        return look(path, **how)

    monkeypatch.setattr(spill.os, "stat", look_too_late)
    spill._sweep(str(tmp_path))
    assert swept_by_another
    assert os.listdir(tmp_path) == []


def test_what_a_living_process_has_is_left_alone(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        assert process.stdout is not None
        theirs = aged(Path(process.stdout.readline().strip()).parent)
        spill.make_folder()
        assert theirs.is_dir()
        process.communicate("\n")
        assert not theirs.exists(), "it takes its folder away itself, at exit"


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    others = [aged(tmp_path / name) for name in ("anymap", "anymap-notes", f"anymap-{os.getuid() + 1}-1-abc") if
              (tmp_path / name).mkdir() is None]  # fmt: skip
    spill.make_folder()
    assert all(folder.is_dir() for folder in others)


def test_the_folder_comes_again_when_somebody_has_removed_it(tmp_path: Path) -> None:
    first = Path(spill.make_folder())
    spill.remove_folder(str(first.parent))
    assert Path(spill.make_folder()).is_dir()
    spill.remove_own()
    assert list(tmp_path.iterdir()) == []


# --- no room ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Have folders made in two places, the first to be preferred."""
    places = tmp_path / "first", tmp_path / "second"
    for place in places:
        place.mkdir()
    monkeypatch.setattr(spill, "_bases", lambda: [str(place) for place in places])
    return places


def finds_no_room_in(*places: Path) -> Callable[[io.FileIO], int]:
    """Return what writes half of what it should where these places are full."""

    def write(file: io.FileIO) -> int:
        written = file.write(b"half")
        if any(Path(os.path.realpath(str(file.name))).is_relative_to(place) for place in places):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written + file.write(b"half")

    return write


def files_in(*places: Path) -> list[Path]:
    return [path for place in places for path in place.rglob("*") if path.is_file()]


def test_what_finds_no_room_in_the_first_place_goes_to_the_second(two_places: tuple[Path, Path]) -> None:
    first, second = two_places
    folder = spill.make_folder()
    assert folder.startswith(str(first))
    path, written = spill.write_file(folder, finds_no_room_in(first))
    assert written == 8
    assert Path(path).read_text() == "halfhalf"
    assert [file.name for file in files_in(second)] == [Path(path).name]
    assert not files_in(first)
    spill.remove_folder(folder)
    assert not files_in(second)
    spill.remove_own()
    assert not [*first.iterdir(), *second.iterdir()]


def test_where_no_place_has_room_the_error_names_them_and_nothing_stays(two_places: tuple[Path, Path]) -> None:
    folder = spill.make_folder()
    with pytest.raises(OSError, match=r"first .*second .*TMPDIR") as caught:
        spill.write_file(folder, finds_no_room_in(*two_places))
    assert caught.value.errno == errno.ENOSPC
    assert not files_in(*two_places)


def test_a_place_where_no_folder_can_be_made_is_left_out(two_places: tuple[Path, Path]) -> None:
    first, second = two_places
    first.rmdir()
    folder = spill.make_folder()
    assert folder.startswith(str(second))
    path, _ = spill.write_file(folder, finds_no_room_in())
    assert Path(path).parent == Path(folder)
    spill.remove_own()
    second.rmdir()
    with pytest.raises(FileNotFoundError, match=r"first .*second "):
        spill.make_folder()


def test_both_places_are_swept(two_places: tuple[Path, Path]) -> None:
    left = [place / f"anymap-{os.getuid()}-1-abc" for place in two_places]
    for folder in left:
        folder.mkdir()
        aged(folder)
    spill.make_folder()
    assert not any(folder.exists() for folder in left)
