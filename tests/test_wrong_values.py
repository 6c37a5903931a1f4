"""Wrong values are told where they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import anymap
from anymap import ConfigError, Pool, Retry, pmap
from anymap.backends import Dask

if TYPE_CHECKING:
    from collections.abc import Callable

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
