"""The status board."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from anymap._host import status_board
from anymap._host.status_board import UNTOUCHED, Board, Mark
from anymap._worker import heartbeat

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_worker_marks_is_read_on_the_other_side(tmp_path: Path) -> None:
    board = Board(str(tmp_path))
    assert board.path is not None
    slot = board.take()
    assert board.read(slot) == UNTOUCHED
    workers_view = status_board.attach(board.path)
    status_board.sign(workers_view, slot)
    status_board.write_item(workers_view, status_board.item_offset(slot), 3, 12.5)
    assert board.read(slot) == Mark(os.getpid(), 3, 12.5)
    board.cancel()
    assert workers_view[0] == 1
    board.close()
    assert not list(tmp_path.iterdir())


def test_a_slot_is_blank_when_it_is_handed_out_again() -> None:
    board = Board(None)
    slots = [board.take() for _ in range(status_board.SLOTS)]
    assert board.full
    assert len(set(slots)) == status_board.SLOTS
    status_board.sign(board.buffer, slots[5])
    board.give_back(slots[5])
    assert board.take() == slots[5]
    assert board.read(slots[5]) == UNTOUCHED


@pytest.mark.skipif(sys.platform != "linux", reason="reads how many blocks a file has as Linux counts them")
def test_its_room_is_taken_when_it_is_made(tmp_path: Path) -> None:
    # In mapped memory, what a file system has no room for is the end of the process.
    board = Board(str(tmp_path))
    assert board.path is not None
    assert os.stat(board.path).st_blocks * 512 >= len(board.buffer)
    board.close()


@pytest.mark.parametrize(
    ("since", "known"),
    [(0.3, 0.5), (status_board.SILENCE + 0.1, 0.6)],
    ids=["it may have ended since", "its worker is too busy to say more"],
)
def test_an_item_elsewhere_has_run_for_as_long_as_was_told(
    monkeypatch: pytest.MonkeyPatch, since: float, known: float
) -> None:
    now = 100.0
    monkeypatch.setattr(status_board.time, "monotonic", lambda: now)
    board = heartbeat.RemoteBoard()
    slot = board.take()
    board.receive(heartbeat._beat.pack(heartbeat._BEAT, slot, 7, 2, 0.5))
    now += since
    assert board.read(slot).seconds() == pytest.approx(known)
