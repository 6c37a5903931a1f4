"""Looking in on what is under way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from anymap._host.ticker import Ticker

if TYPE_CHECKING:
    import pytest


def test_one_that_cannot_be_visited_keeps_nobody_else_from_it(caplog: pytest.LogCaptureFixture) -> None:
    visits: list[str] = []
    seen = threading.Condition()

    def visit(one: str) -> None:
        with seen:
            visits.append(one)
            seen.notify_all()
        if one == "bad":
            raise ValueError("cannot be visited")

    rounds = Ticker(visit, 0.001, "test-rounds")
    with rounds.visiting("bad"), rounds.visiting("good"), seen:
        assert seen.wait_for(lambda: "bad" in visits and visits.count("good") >= 5, timeout=30)
    assert visits.count("bad") == 1
    assert len(caplog.records) == 1


def test_whoever_comes_when_all_have_gone_is_visited() -> None:
    rounds = Ticker(threading.Event.set, 0.001, "test-rounds")
    for _ in range(3):
        visited = threading.Event()
        with rounds.visiting(visited):
            assert visited.wait(30)
        while rounds._thread is not None:  # it notices on its next round
            threading.Event().wait(0.001)
