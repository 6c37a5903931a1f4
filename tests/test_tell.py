"""What running code tells its map arrives while it runs, in order, and though its worker be killed."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import WorkerLost, pmap
from anymap._engine.results import collect
from anymap._engine.run import Run
from anymap._engine.sources import Rows
from anymap._host import live_messages, pipe_reader
from anymap._host.live_messages import Frames, Outbox, Told, decode, decode_bundle, encode, frames
from anymap._in_worker import tell as _tell
from anymap._in_worker.tell import tell
from anymap._plan.make import make_plan
from anymap.testing._station import _options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from anymap.backends.base import Backend


def listened(func: Callable[[Any], Any], items: Iterable[Any], listeners: dict[str, Any], **options: Any) -> Any:
    """Do a map to which somebody listens."""
    plan = make_plan(func, (items,), **_options(progress=False, **options))
    return collect(Run(dataclasses.replace(plan, listeners=listeners), Rows(iter(items), prompt=True)), plan)


def tell_three(item: int) -> tuple[list[bool], bool, int]:
    return [tell("heard", (item, n)) for n in range(3)], tell("unheard", item), os.getpid()


def test_what_items_tell_arrives_with_item_and_process_in_the_order_of_each(backend: Backend) -> None:
    heard: list[Told] = []
    results = listened(tell_three, range(20), {"heard": heard.append}, backend=backend, workers=2)
    assert [result[:2] for result in results] == [([True] * 3, False)] * 20
    by_item = {item: [told for told in heard if told.item == item] for item in range(20)}
    assert all([told.message for told in by_item[item]] == [(item, n) for n in range(3)] for item in range(20))
    assert all({told.pid for told in by_item[item]} == {results[item][2]} for item in range(20))
    assert {told.host for told in heard} == {os.uname().nodename}


def test_it_arrives_while_the_item_runs(backend: Backend, tmp_path: Path) -> None:
    def wait_until_heard(item: int) -> bool:
        tell("heard", item)
        give_up = time.monotonic() + 30
        while not (tmp_path / str(item)).exists() and time.monotonic() < give_up:
            time.sleep(0.001)
        return (tmp_path / str(item)).exists()

    def note(told: Told) -> None:
        (tmp_path / str(told.message)).touch()

    assert listened(wait_until_heard, [0, 1], {"heard": note}, backend=backend, workers=2) == [True, True]


@pytest.mark.parametrize("name", ["processes", "pathos", "joblib"])
def test_what_was_told_before_the_worker_was_killed_has_arrived(name: str) -> None:
    def tell_and_die(item: int) -> None:
        for n in range(100):
            tell("heard", n)
        os.kill(os.getpid(), signal.SIGKILL)

    heard: list[Told] = []
    with pytest.raises(WorkerLost):
        listened(tell_and_die, [0], {"heard": heard.append}, backend=name, workers=2)
    assert [told.message for told in heard] == list(range(100))


def test_where_nothing_leads_home_but_the_answer_it_comes_with_that(dask_cluster: str) -> None:
    import joblib
    from distributed import Client

    heard: list[Told] = []
    with Client(scheduler_file=dask_cluster), joblib.parallel_config("dask"):
        listened(tell_three, range(5), {"heard": heard.append}, backend="joblib")
    assert sorted(told.message for told in heard) == [(item, n) for item in range(5) for n in range(3)]


def test_outside_a_map_and_where_nobody_listens_nobody_is_told() -> None:
    assert tell("heard", 1) is False
    assert pmap(lambda item: tell("heard", item), [1], backend="serial") == [False]


def test_a_map_to_which_nobody_listens_makes_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_LOGS", "off")
    anymap.shutdown()
    pmap(tell_three, [1, 2], backend="processes", workers=1, progress=False)
    assert not pipe_reader._readers


def test_many_maps_share_one_pipe() -> None:
    for _ in range(3):
        listened(tell_three, [1], {"heard": lambda told: None}, backend="processes", workers=1)
    assert len(pipe_reader._readers) == 1
    assert set(pipe_reader._readers[0].receivers) == {pipe_reader._READER}


@pytest.mark.parametrize("inner", ["serial", "threads", "processes"])
@pytest.mark.parametrize("outer", ["serial", "processes"])
def test_what_only_the_outer_map_listens_to_reaches_it_from_an_inner_one(outer: str, inner: str) -> None:
    def map_inside(item: int) -> list[bool]:
        return pmap(lambda row: tell("heard", (item, row)), range(3), backend=inner, workers=1)

    heard: list[Told] = []
    results = listened(map_inside, range(2), {"heard": heard.append}, backend=outer, workers=2)
    assert results == [[True] * 3] * 2
    assert sorted((told.item, told.message) for told in heard) == [(i, (i, row)) for i in range(2) for row in range(3)]


def test_threads_that_an_item_starts_are_in_its_map() -> None:
    def tell_in_a_thread(item: int) -> None:
        thread = threading.Thread(target=tell, args=("heard", "from a thread"))
        thread.start()
        thread.join()

    heard: list[Told] = []
    listened(tell_in_a_thread, [1], {"heard": heard.append}, backend="processes", workers=1)
    assert [(told.message, told.item) for told in heard] == [("from a thread", 0)]


def test_a_long_message_arrives_whole_among_those_of_others() -> None:
    def tell_long(item: int) -> None:
        for n in range(10):
            tell("heard", bytes([item]) * (10_000 * n))

    heard: list[Told] = []
    listened(tell_long, range(4), {"heard": heard.append}, backend="processes", workers=2, chunksize=1)
    lengths = {item: [len(told.message) for told in heard if told.item == item] for item in range(4)}
    assert lengths == {item: [10_000 * n for n in range(10)] for item in range(4)}
    assert all(set(told.message) <= {told.item} for told in heard)


def test_what_is_too_long_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Told] = []
    results = listened(
        lambda item: tell("heard", bytes(2 * live_messages.LARGEST)),
        [1, 2],
        {"heard": heard.append},
        backend="processes",
        workers=1,
    )
    assert (results, heard) == ([False, False], [])
    assert "dropped: 2 of 'heard'" in caplog.text


def test_no_worker_waits_for_long_for_a_caller_who_does_not_listen() -> None:
    """The pipe is full: what has no patience is dropped at once, and what has some is dropped and counted."""
    messages: list[bytes] = []
    held, full = threading.Event(), threading.Event()

    def hold(message: bytes) -> None:
        messages.append(message)
        full.set()
        held.wait(30)

    receiver = pipe_reader.open_receiver(hold)
    assert receiver is not None
    pipe = _tell._pipe(receiver.path)
    message = encode(Told("heard", bytes(1000), None, 0, ""))
    written = 0
    while pipe.write(message, receiver.tag, 0.0):
        written += 1
    full.wait(30)
    while pipe.write(message, receiver.tag, 0.0):  # into the room that the first read has made
        written += 1
    assert pipe.write(message, receiver.tag, 0.01) is False
    assert pipe._is_stuck
    held.set()
    receiver.settle()
    assert len(messages) == written
    assert pipe.write(message, receiver.tag, 1.0) is True
    receiver.settle()
    assert len(messages) == written + 1
    receiver.close()


def test_a_listener_that_raises_is_reported_once_and_the_map_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def fail(told: Told) -> None:
        raise ValueError("no ear")

    for name in ("serial", "processes"):
        caplog.clear()
        listened(tell_three, range(3), {"heard": fail}, backend=name, workers=1)
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
            "a listener to 'heard' raised an error and is not called again"
        ]


def test_a_message_that_cannot_be_pickled_harms_nobody() -> None:
    results = listened(
        lambda item: tell("heard", threading.Lock()), [1], {"heard": print}, backend="processes", workers=1
    )
    assert results == [False]


def test_frames_are_put_together_however_they_are_cut() -> None:
    messages = [bytes([n]) * size for n, size in enumerate((0, 1, 83, 500, 2000))]
    each = [list(frames(message, n, 1, n, 100)) for n, message in enumerate(messages)]
    assert all(len(frame) <= 100 for one in each for frame in one)
    # Several writers at once: a frame of each in turn.
    turns = max(map(len, each))
    data = b"".join(one[turn] for turn in range(turns) for one in each if turn < len(one))
    for cut in (1, 7, 4096):
        came = Frames()
        taken = dict(message for begin in range(0, len(data), cut) for message in came.take(data[begin : begin + cut]))
        assert taken == {n: message for n, message in enumerate(messages) if message}


def test_an_outbox_sends_at_once_then_bundles_and_leaves_the_rest_to_the_answer() -> None:
    sent: list[bytes] = []
    outbox = Outbox(sent.append)
    for n in range(5):
        assert outbox.put(encode(Told("heard", n, None, 0, "")))
    messages = [[decode(message).message for message in decode_bundle(bundle)] for bundle in sent]
    assert messages[0] == [0]
    rest = [decode(message).message for message in outbox.empty()]
    assert [message for bundle in messages for message in bundle] + rest == list(range(5))


def test_an_outbox_that_nobody_empties_has_bounds() -> None:
    outbox = Outbox(None)
    message = bytes(live_messages.LARGEST // 4)
    assert [outbox.put(message) for _ in range(5)] == [True] * 4 + [False]
    outbox.dropped["heard"] = 1
    told = decode(outbox.empty()[-1])
    assert (told.topic, told.message) == (live_messages.DROPPED, {"heard": 1})
