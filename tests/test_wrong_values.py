"""Wrong values are told where they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tqdm

import anymap
from anymap import ConfigError, Executor, Pool, Retry, pmap
from anymap.backends import Dask
from anymap.logs import Formatter, rotating_file
from anymap.progress import BarSink, JsonLinesSink, LogSink, RichSink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WRONG: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "progress",
        lambda: anymap.using(progress="x"),
        ConfigError,
        r"using\(\): progress='x' asks for nothing",
    ),
    ("progress", lambda: anymap.configure(progress=5), ConfigError, r"configure\(\): progress"),
    ("progress", lambda: anymap.configure(progress=["bar", "x"]), ConfigError, r"configure\(\): progress"),
    ("backend", lambda: anymap.using(backend="x"), ConfigError, r"using\(\): no backend is called 'x'"),
    (
        "backend",
        lambda: anymap.configure(backend="loky"),
        ConfigError,
        r"configure\(\): .*'joblib', which runs on loky",
    ),
    ("backend", lambda: anymap.configure(backend=5), ConfigError, r"configure\(\): backend must be a backend's name"),
    ("profile", lambda: anymap.using(profile=5), ConfigError, r"using\(\): profile must be a string"),  # type: ignore[arg-type]
    ("per_worker", lambda: anymap.per_worker(3), TypeError, "per_worker takes a function .*, not 3"),  # type: ignore[arg-type]
    ("track", lambda: anymap.track(5), TypeError, "track takes what can be iterated over, not 5"),  # type: ignore[arg-type]
    ("lazy", lambda: pmap(abs, [1], lazy=1), ConfigError, "lazy must be True or False, not 1"),  # type: ignore[call-overload]
    ("ordered", lambda: pmap(abs, [1], ordered=0), ConfigError, "ordered must be True or False"),  # type: ignore[call-overload]
    ("Retry", lambda: Retry(-1), ConfigError, "times must be a number of attempts, 0 or more, not -1"),
    ("register", lambda: anymap.register("mine", 5), ConfigError, "backend must be a class or 'module:Class', not 5"),  # type: ignore[arg-type]
    ("register", lambda: anymap.register("mine", "Mine"), ConfigError, "'module:Class', not 'Mine'"),
    ("register", lambda: anymap.register(5, "a:B"), ConfigError, "name must be a string"),  # type: ignore[arg-type]
    ("register", lambda: anymap.register("mine", "a:B", requires="a"), ConfigError, "not the string 'a'"),  # type: ignore[arg-type]
    ("Dask", lambda: Dask(timeout="x"), ConfigError, "timeout as a number of seconds"),  # type: ignore[arg-type]
    ("Dask", lambda: Dask(address=5), ConfigError, "address as a string, not 5"),  # type: ignore[arg-type]
    ("Dask", lambda: Dask(client=5), ConfigError, r"takes a distributed\.Client as its client, not 5"),  # type: ignore[arg-type]
    ("Dask", lambda: Dask(address="x", security=5), ConfigError, "as security, not 5"),  # type: ignore[arg-type]
    ("Dask", lambda: Dask(ship_modules=5), ConfigError, "must be a list of names, not 5"),  # type: ignore[arg-type]
    ("Dask", lambda: Dask(ship_modules=[5]), ConfigError, r"must be a list of names, not \[5\]"),  # type: ignore[list-item]
    (
        "LogSink",
        lambda: LogSink(every=-1),
        ConfigError,
        "LogSink: every must be a number of seconds, 0 or more, not -1",
    ),
    ("LogSink", lambda: LogSink(5), ConfigError, "LogSink: logger must be a logger or its name, not 5"),  # type: ignore[arg-type]
    ("BarSink", lambda: BarSink(5), ConfigError, r"BarSink takes the class of its bar, .*, not 5"),  # type: ignore[arg-type]
    ("BarSink", lambda: BarSink(delay="x"), ConfigError, "BarSink: delay must be a number of seconds"),  # type: ignore[arg-type]
    ("RichSink", lambda: RichSink(5), ConfigError, r"takes a rich\.console\.Console, not 5"),  # type: ignore[arg-type]
    ("JsonLinesSink", lambda: JsonLinesSink(5), ConfigError, "takes the path of a file, not 5"),  # type: ignore[arg-type]
    ("rotating_file", lambda: rotating_file(5), ConfigError, "filename must be the path of the log file, not 5"),  # type: ignore[arg-type]
    ("rotating_file", lambda: rotating_file("x", encoding="x"), ConfigError, "encoding must be the name of a text enc"),
    ("rotating_file", lambda: rotating_file("x", encoding="hex"), ConfigError, "such as 'utf-8', not 'hex'"),
    ("submit", lambda: Executor(1, backend="serial").submit(5), TypeError, "submit's first argument must be a func"),  # type: ignore[arg-type]
    ("failure", lambda: anymap.failure(5), TypeError, "takes an exception, not 5"),  # type: ignore[arg-type]
    ("explain", lambda: anymap.explain("x"), TypeError, "takes an open file, or nothing, not 'x'"),  # type: ignore[arg-type]
    ("apply", lambda: Pool(1, backend="serial").apply(5), TypeError, "apply_async's first argument must be a func"),  # type: ignore[arg-type]
    ("map", lambda: Pool(1, backend="serial").map(abs, [1], callback=5), TypeError, "callback must be a function"),  # type: ignore[arg-type]
    (
        "map_async",
        lambda: Pool(1, backend="serial").map_async(abs, [1], error_callback=5),  # type: ignore[arg-type]
        TypeError,
        "error_callback must be a function to call, not 5",
    ),
    ("map_async", lambda: Pool(1, backend="serial").map_async(5, [1]), TypeError, "must be a function"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("what", "call", "error", "text"), WRONG, ids=[f"{n}-{w[0]}" for n, w in enumerate(WRONG)])
def test_a_wrong_value_is_told_where_it_is_written(
    what: str, call: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_truth_of_numpys_is_one() -> None:
    numpy = pytest.importorskip("numpy")
    assert pmap(abs, [-1], backend="serial", ordered=numpy.bool_(1)) == [1]


def test_what_is_set_in_code_and_right_is_taken() -> None:
    for progress in (None, True, "log", "jsonl:/dev/null", {"leave": False}, print, ["bar", print]):
        anymap.using(progress=progress)
    for backend in ("serial", anymap.backends.Serial(), anymap.backends.Serial):
        anymap.using(backend=backend)


def test_sinks_and_formatters_say_what_they_are(tmp_path: Path) -> None:
    assert repr(BarSink()) == "BarSink()"
    assert repr(BarSink(tqdm.tqdm, delay=2, ncols=40)) == "BarSink(tqdm, delay=2.0, ncols=40)"
    assert repr(LogSink("mine", every=3)) == "LogSink('mine', every=3)"
    assert repr(RichSink()) == "RichSink()"
    assert repr(JsonLinesSink(tmp_path / "events")) == f"JsonLinesSink({str(tmp_path / 'events')!r})"
    assert repr(Formatter("%(message)s")) == "<anymap.logs.Formatter '%(message)s'>"


def test_the_results_of_a_pool_say_what_they_are() -> None:
    with Pool(1, backend="serial") as pool:
        assert repr(pool.imap(abs, [1])) == "<results of an anymap.Pool, 0 ready>"
