"""Context variables of the caller's in the worker."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

from anymap import ConfigError, NotPicklable, pmap, using
from anymap.testing import _samples as samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anymap.backends.base import Backend

WANTED = "anymap.testing._samples:request"


def read(_: object) -> str | None:
    value: str | None = samples.request.get()
    return value


@pytest.fixture
def travels() -> Iterator[None]:
    with using(context=[WANTED]):
        yield


@pytest.mark.usefixtures("travels")
def test_items_see_the_callers_value(backend: Backend) -> None:
    def as_one_caller(name: str) -> list[str | None]:
        samples.request.set(name)
        return pmap(read, range(3), backend=backend, workers=2)

    assert copy_context().run(as_one_caller, "first") == ["first"] * 3
    assert copy_context().run(as_one_caller, "second") == ["second"] * 3
    assert read(0) is None


@pytest.mark.usefixtures("travels")
def test_what_an_item_sets_the_next_does_not_see(backend: Backend) -> None:
    def changes(item: int) -> str | None:
        seen = read(item)
        samples.request.set(f"changed by {item}")
        return seen

    def caller() -> list[str | None]:
        samples.request.set("mine")
        return pmap(changes, range(4), backend=backend, workers=1, chunksize=4)

    assert copy_context().run(caller) == ["mine"] * 4


@pytest.mark.usefixtures("travels")
def test_a_variable_without_a_value_stays_as_it_is(backend: Backend) -> None:
    assert pmap(read, range(2), backend=backend, workers=1) == [None, None]


def test_nothing_travels_unasked() -> None:
    def caller() -> list[str | None]:
        samples.request.set("mine")
        return pmap(read, range(2), backend="processes", workers=1)

    assert copy_context().run(caller) == [None, None]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("no_colon", "module:variable"),
        ("no.such.module:x", "no.such"),
        ("os:nothing", "nothing"),
        ("os:sep", "ContextVar"),
    ],
)
def test_a_wrong_name_is_told(named: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMAP_CONTEXT", named)
    with pytest.raises(ConfigError, match=said):
        pmap(read, range(2), backend="threads")


@pytest.mark.usefixtures("travels")
def test_a_value_that_cannot_travel_is_told_by_the_variables_name() -> None:
    def caller() -> Any:
        samples.request.set(threading.Lock())  # type: ignore[arg-type]
        return pmap(read, range(2), backend="processes")

    with pytest.raises(NotPicklable, match=WANTED):
        copy_context().run(caller)
