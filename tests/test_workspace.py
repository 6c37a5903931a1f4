"""What a map works with is kept for the next one, if it was left clean."""

from __future__ import annotations

import os
import signal

import pytest

from anymap import WorkerLost, pmap, shutdown
from anymap._host import workspace


@pytest.fixture
def no_desks() -> None:
    workspace._clear_all_away()


def kept() -> list[str]:
    return [each.folder for each in workspace._kept]


@pytest.mark.processes
def test_maps_one_after_another_work_at_one_desk(no_desks: None) -> None:
    pmap(abs, range(3), workers=1)
    (folder,) = kept()
    pmap(abs, range(3), workers=2)
    assert kept() == [folder]


@pytest.mark.processes
def test_a_map_within_a_consumer_of_another_has_a_desk_of_its_own(no_desks: None) -> None:
    with pmap(abs, range(3), workers=1, lazy=True) as results:
        next(results)
        assert not kept()
        pmap(abs, range(3), workers=1)
        assert len(kept()) == 1
        assert list(results) == [1, 2]
    assert len(kept()) == 2


@pytest.mark.processes
def test_a_desk_is_not_kept_where_somebody_may_still_write_to_it(no_desks: None) -> None:
    with pytest.raises(WorkerLost):
        pmap(lambda x: os.kill(os.getpid(), signal.SIGKILL), [1], workers=1)
    with pytest.raises(ZeroDivisionError):
        pmap(lambda x: 1 / x, [0], workers=1)
    pmap(abs, iter(range(10)), workers=1, lazy=True).close()
    assert not kept()


@pytest.mark.processes
def test_a_desk_is_not_kept_with_something_left_in_it(no_desks: None) -> None:
    large = bytes(10_000_000)
    assert pmap(lambda x: len(large) + x, range(2), workers=1) == [10_000_000, 10_000_001]
    assert not kept()


@pytest.mark.processes
def test_a_desk_that_somebody_tidied_away_is_not_used(no_desks: None) -> None:
    pmap(abs, range(3), workers=1)
    (folder,) = kept()
    os.unlink(workspace._kept[0].board.path or "")
    os.rmdir(folder)
    assert pmap(abs, range(3), workers=1) == [0, 1, 2]
    assert folder not in kept()


@pytest.mark.processes
def test_a_map_of_more_workers_gets_a_larger_board(no_desks: None) -> None:
    small, larger = workspace.take(4), workspace.take(400)
    workspace.give_back(small, clean=False)
    assert small.board.slots < larger.board.slots
    workspace.give_back(larger, clean=True)
    assert workspace.take(4) is larger
    workspace.give_back(larger, clean=False)


@pytest.mark.processes
def test_a_board_is_wiped_for_the_next_map(no_desks: None) -> None:
    one = workspace.take(1)
    slot = one.board.take()
    one.board.cancel()
    one.board.buffer[64:72] = b"x" * 8
    workspace.give_back(one, clean=True)
    again = workspace.take(1)
    assert again is one
    assert not bytes(again.board.buffer).strip(b"\0")
    assert again.board.take() == slot
    workspace.give_back(again, clean=False)


def test_shutdown_clears_all_away(no_desks: None) -> None:
    pmap(abs, range(3), backend="processes", workers=1)
    (folder,) = kept()
    shutdown()
    assert not kept()
    assert not os.path.exists(folder)
