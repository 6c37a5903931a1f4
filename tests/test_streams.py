"""Programs without standard streams, or with closed ones: maps give their results, whatever they would have shown."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from joblib.externals.loky import get_reusable_executor

from anymap import pmap
from anymap._host import streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from anymap.backends.base import Backend


class Broken:
    """What no process reads any more."""

    encoding = "utf-8"
    closed = False

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return False


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


CASES: dict[str, Callable[[], Any]] = {"None": lambda: None, "closed": closed, "broken": Broken}


@pytest.mark.filterwarnings("ignore:rich is experimental")
@pytest.mark.parametrize("case", CASES)
def test_a_map_gives_its_results_where_nothing_can_be_shown(
    backend: Backend, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = os.getpid()

    def work(item: int) -> int:
        if os.getpid() != caller:  # in the caller's process it would fail in a loop, too
            logging.getLogger("streams").warning("item %d", item)
        return -item

    if backend.name == "joblib":  # its workers are to be started while there are no streams
        get_reusable_executor().shutdown()
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(sys, "stderr", CASES[case]())
    monkeypatch.setattr(sys, "stdout", CASES[case]())
    for progress in (True, "log", "rich"):
        assert pmap(work, range(4), backend=backend.fresh(), workers=2, progress=progress) == [0, -1, -2, -3]


def test_a_stream_that_is_set_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert streams.unflushable() == ("stderr",)
    with streams.replaced(streams.unflushable()):
        assert streams.unflushable() == ()
    assert sys.stderr is None
    own = io.StringIO()
    with streams.replaced(("stderr",)):
        sys.stderr = own
    assert sys.stderr is own
