"""What a program may put in ``sys.modules`` is no trouble for a map, and is not asked for anything."""

from __future__ import annotations

import importlib.util
import logging
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from anymap import pmap, using

if TYPE_CHECKING:
    from pathlib import Path

    from anymap.backends.base import Backend


class Refuses:
    """Raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"asked for {name}")


class RefusingModule(ModuleType):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"asked for {name}")


def lazy_module(folder: Path) -> ModuleType:
    """Return a module that loads when it is asked for something."""
    (folder / "loads_later.py").write_text("raise RuntimeError('it was loaded')")
    spec = importlib.util.spec_from_file_location("loads_later", folder / "loads_later.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def odd_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    lazy = lazy_module(tmp_path)
    odd = {
        "refuses": Refuses(),
        "refusing_module": RefusingModule("refusing_module"),
        "loads_later": lazy,
        "none": None,
    }
    odd |= {name: Refuses() for name in ("pandas", "polars", "gevent.monkey", "eventlet.patcher", "grpc", "torch")}
    for name, module in odd.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    return lazy


def test_a_map_asks_none_of_them(backend: Backend, odd_modules: ModuleType) -> None:
    class Point(tuple):  # noqa: SLOT001 - one of many that travel by value
        pass

    def work(item: int) -> Any:
        logging.getLogger("odd").warning("item %d", item)
        return Point((item, Point.__name__))

    events: list[object] = []
    with using(logs="forward"):
        results = pmap(work, range(4), backend=backend, workers=2, progress=events.append)
    assert results == [(item, "Point") for item in range(4)]
    assert all(type(result) is Point for result in results)
    assert events
    assert type(odd_modules).__name__ == "_LazyModule"


@pytest.mark.processes
def test_nor_does_one_whose_items_fail_and_are_none_it_can_send(odd_modules: ModuleType) -> None:
    def work(item: Any) -> Any:
        if item == 1:
            raise KeyError(item)
        return lambda: item

    items = [0, 1, (value for value in ())]
    results = pmap(work, items, backend="processes", workers=2, on_error="return")
    assert [type(result).__name__ for result in results] == ["function", "KeyError", "NotPicklable"]
    assert type(odd_modules).__name__ == "_LazyModule"
