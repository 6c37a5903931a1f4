"""How costs grow, with items, workers, bytes and windows, and the curves of that for the page."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks import gauge, harness, work
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.workload import Contender

FOLDER = Path(__file__).parents[1] / "docs" / "plots"


@dataclass(frozen=True)
class Curve:
    """One workload for growing values of one of its parameters."""

    name: str
    workload: str
    parameter: str
    values: Sequence[int]
    short: int
    """How many of the values a quick run takes."""
    contenders: Sequence[str]
    label: str
    measure: Callable[[SimpleNamespace, float], float]
    """The height of a point, from the parameters and seconds."""
    unit: str
    also: Mapping[str, Callable[[int], float]]
    """Other parameters that follow from the value."""
    linear: bool = False


def _items(per_item: float) -> Callable[[SimpleNamespace, float], float]:
    return lambda params, seconds: per_item * seconds / params.items


CURVES = (
    Curve(
        name="items",
        workload="tiny",
        parameter="items",
        values=[10**power for power in range(2, 8)],
        short=3,
        contenders=[
            "anymap",
            "Pool.imap_unordered, chunks of 1,000",
            "Pool.map, chunks of 12,500",
            "joblib, batches of 12,500",
        ],
        label="items of `x * x`, 2 processes that are warm",
        measure=_items(1e6),
        unit="us an item",
        also={},
    ),
    Curve(
        name="workers",
        workload="waiting",
        parameter="workers",
        values=[1, 2, 4, 8, 16, 32, 64],
        short=3,
        contenders=["anymap", "anymap, threads", "Pool.imap_unordered, chunks of 10", "mpire map, chunks of 10"],
        label="workers, 200 items of 5 ms for each",
        measure=lambda params, seconds: seconds / (params.items / params.workers * params.ms / 1000),
        unit="x ideal",
        also={"items": lambda workers: 200 * workers},
        linear=True,
    ),
    Curve(
        name="payload",
        workload="payload",
        parameter="nbytes",
        values=[10**power for power in range(10)],
        short=6,
        contenders=["anymap", "Pool.imap", "joblib", "mpire map, chunks of 1"],
        label="bytes of an item, an array of numpy, 2 processes that are warm",
        measure=lambda params, seconds: 1e3 * seconds / max(1, min(params.items, params.most // params.nbytes)),
        unit="ms an item",
        also={},
    ),
    Curve(
        name="closure",
        workload="closure",
        parameter="nbytes",
        values=[10**power for power in range(3, 10)],
        short=4,
        contenders=["anymap", "Pool, inherited", "Pool.map, chunks of 500", "mpire map, new forks, chunks of 50"],
        label="bytes that the function drags along, 1,000 calls of 0.2 ms",
        measure=lambda _, seconds: seconds,
        unit="s",
        also={},
    ),
    Curve(
        name="window",
        workload="stream",
        parameter="window",
        values=[4, 16, 64, 256, 1024, 4096, 16384],
        short=3,
        contenders=["anymap"],
        label="window, in items, of a stream of 100,000 lines",
        measure=_items(1e6),
        unit="us an item",
        also={"items": lambda _: 100_000},
    ),
)


def measure(names: list[str], *, rounds: int, seed: int, quick: bool, say: Callable[[str], Any]) -> dict[str, Any]:
    """Measure these curves, or all; return all numbers."""
    turns = work.turns_per_second()
    found: dict[str, Any] = {"machine": gauge.machine(), "versions": gauge.versions(), "rounds": rounds, "curves": {}}
    for curve in CURVES:
        if not names or curve.name in names:
            values = curve.values[: curve.short] if quick else curve.values
            found["curves"][curve.name] = [_point(curve, value, turns, rounds, seed, quick, say) for value in values]
    return found


def _point(
    curve: Curve, value: int, turns: int, rounds: int, seed: int, quick: bool, say: Callable[[str], Any]
) -> dict[str, Any]:
    # Memory is for the table.
    workload = replace(WORKLOADS[curve.workload], memory=False)
    changed = {curve.parameter: value, **{name: follow(value) for name, follow in curve.also.items()}}
    params = workload.settle(quick=quick, turns_per_second=turns, **changed)
    contenders: list[Contender] = [workload.contender(name) for name in curve.contenders]
    records = harness.compete(
        workload, contenders, params, rounds, seed, lambda words: say(f"{curve.name} {value}: {words}")
    )
    return {"value": value, **harness.results(workload, params, records)}


def plot(files: list[dict[str, Any]]) -> None:
    """Draw the curves of these results into the folder of the page; of one that is in several files the last counts."""
    merged = {name: points for file in files for name, points in file["curves"].items()}
    for curve in CURVES:
        if curve.name in merged:
            _draw(curve, merged[curve.name])


def _draw(curve: Curve, points: list[dict[str, Any]]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    # The same numbers give the same file.
    mpl.rcParams.update({"svg.hashsalt": "anymap", "svg.fonttype": "none", "font.size": 9})
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name in curve.contenders:
        shown = [(point["value"], _height(curve, point, name)) for point in points]
        shown = [(x, y) for x, y in shown if y is not None]
        if shown:
            axes.plot(
                *zip(*shown, strict=True), marker="o", markersize=3, label=name, zorder=3 if name == "anymap" else 2
            )
    axes.set_xscale("log", base=10 if curve.values[0] * 10 in curve.values else 2)
    axes.set_yscale("linear" if curve.linear else "log")
    axes.set(xlabel=curve.label, ylabel=curve.unit)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / f"{curve.name}.svg", metadata={"Date": None})
    plt.close(figure)


def _height(curve: Curve, point: dict[str, Any], name: str) -> float | None:
    record = point["contenders"].get(name)
    if record is None or record["failed"] is not None or not record["seconds"]:
        return None
    return curve.measure(SimpleNamespace(**point["params"]), statistics.median(record["seconds"]))
