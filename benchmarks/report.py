"""From raw numbers to the tables of ``docs/benchmarks.md``."""

from __future__ import annotations

import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.medians import Interval, paired_ratio
from benchmarks.workloads import WORKLOADS
from benchmarks.workloads.durations import greedy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from benchmarks.workload import Workload

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN = "<!-- From what was measured, by `python -m benchmarks report FILE...`. -->"
END = "<!-- End of what was generated. -->"


class Row(NamedTuple):
    """One contender's numbers as a table needs them."""

    name: str
    role: str
    median: float | None
    """Seconds; ``None`` if it is out."""
    cpu: float | None
    figures: dict[str, float]
    peak: int | None
    failed: str | None
    ratio: Interval | None
    """anymap's time over this one's; ``None`` for anymap itself."""


def write(files: list[dict[str, Any]]) -> None:
    """Put the tables of these results in their place; of a workload that is in several the last counts."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{generated(files)}\n\n{END}{after}")


def generated(files: list[dict[str, Any]]) -> str:
    """Return all tables: one line for each workload first, then each with all who took part."""
    merged = {name: found for file in files for name, found in file["workloads"].items() if name in WORKLOADS}
    found = {name: merged[name] for name in WORKLOADS if name in merged and not WORKLOADS[name].hidden}
    parts = [_conditions(files[-1]), "## At a glance", summary(found), "## In full"]
    parts += [table(name, result) for name, result in found.items()]
    return "\n\n".join(parts)


def _conditions(file: dict[str, Any]) -> str:
    machine = file["machine"]
    versions = ", ".join(
        f"{'anymap' if name == 'anypmap' else name} {version}" for name, version in file["versions"].items()
    )
    quick = " **These are of a short run that only shows that everything works.**" if file["quick"] else ""
    return (
        f"{machine['cpus']} CPUs ({machine['processor']}), {machine['memory_gb']} GB, {machine['system']}, "
        f"{machine['python']}; {versions}. {file['rounds']} rounds.{quick}"
    )


# --- one line for each workload -------------------------------------------------------------------------------------


def summary(found: dict[str, Any]) -> str:
    """Return the table of anymap beside the best of its peers."""
    head = ["work", "anymap", "x ideal", "best peer", "", "x ideal", "anymap's time over the peer's", "to reach"]
    return _markdown(head, (_summary_line(name, result) for name, result in found.items()))


def _summary_line(name: str, result: dict[str, Any]) -> list[str]:
    workload, params = WORKLOADS[name], SimpleNamespace(**result["params"])
    rows = _rows(result)
    ideal = _ideal(workload, params, rows)
    ours = next((row for row in rows if row.role == "anymap"), None)
    peers = [row for row in rows if row.role in {"tuned", "untuned"} and row.median is not None]
    best = min(peers, key=lambda row: row.median or 0.0, default=None)
    cells = [f"[{workload.title}](#{name})"]
    for row in ours, best:
        shown = row is not None and row.median is not None
        if row is not ours or row is None:
            cells.append(row.name if row is not None else "")
        cells += [workload.show(params, row.median) if shown else "", _times(row.median, ideal) if shown else ""]  # type: ignore[union-attr,arg-type]
    return [*cells, _ratio(best.ratio if best is not None else None), workload.target]


# --- one table for each workload ------------------------------------------------------------------------------------


def table(name: str, result: dict[str, Any]) -> str:
    """Return a workload's heading, its notes, and the table of all who took part."""
    workload, params = WORKLOADS[name], SimpleNamespace(**result["params"])
    rows = sorted(_rows(result), key=_place)
    ideal = _ideal(workload, params, rows)
    figures = list(dict.fromkeys(figure for row in rows for figure in row.figures))
    weighed = any(row.peak is not None for row in rows)
    head = ["", "", *(["x ideal"] if ideal else []), "anymap's time over it", "CPU s", *figures]
    lines = [
        [
            _named(row),
            *([f"*{row.failed}*"] if row.median is None else [workload.show(params, row.median)]),
            *([_times(row.median, ideal)] if ideal else []),
            _ratio(row.ratio),
            f"{row.cpu:.2f}" if row.cpu is not None else "",
            *(f"{row.figures[figure]:,.0f}" if figure in row.figures else "" for figure in figures),
            *([f"{row.peak / 1e6:,.0f}" if row.peak is not None else ""] if weighed else []),
        ]
        for row in rows
    ]
    note = workload.note.format(greedy=greedy(params)) if "{greedy" in workload.note else workload.note
    target = f" To reach: {workload.target}." if workload.target else ""
    return f"({name})=\n### {workload.title}\n\n{note}{target}\n\n" + _markdown(
        [*head, *(["peak MB"] * weighed)], lines
    )


def _place(row: Row) -> tuple[bool, float]:
    return row.median is None, row.median or 0.0


def _named(row: Row) -> str:
    match row.role:
        case "anymap":
            return f"**{row.name}**"
        case "reference":
            return f"*{row.name}*"
        case "untuned" | "by hand":
            return f"{row.name} ({row.role})"
    return row.name


# --- numbers --------------------------------------------------------------------------------------------------------


def _rows(result: dict[str, Any]) -> list[Row]:
    records = result["contenders"]
    ours: list[float] = next((record["seconds"] for record in records.values() if record["role"] == "anymap"), [])
    return [_row(name, record, ours) for name, record in records.items()]


def _row(name: str, record: dict[str, Any], ours: list[float]) -> Row:
    seconds, failed = record["seconds"], record["failed"]
    in_it = failed is None and bool(seconds)
    compared = in_it and record["role"] != "anymap" and bool(ours)
    return Row(
        name,
        record["role"],
        statistics.median(seconds) if in_it else None,
        statistics.median(record["cpu"]) if in_it and record["cpu"] else None,
        {figure: statistics.median(values) for figure, values in record["figures"].items()} if in_it else {},
        record["peak"],
        failed,
        paired_ratio(ours, seconds) if compared else None,
    )


def _ideal(workload: Workload, params: SimpleNamespace, rows: Iterable[Row]) -> float | None:
    if workload.ideal is None:
        return None
    medians = {row.name: row.median for row in rows if row.median is not None}
    try:
        return workload.ideal(params, medians)
    except KeyError:  # the reference was not run
        return None


def _times(seconds: float | None, ideal: float | None) -> str:
    return "" if seconds is None or not ideal else _plain(seconds / ideal)


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _ratio(ratio: Interval | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _markdown(head: list[str], lines: Iterable[list[str]]) -> str:
    def text() -> Iterator[str]:
        yield from ([*head], ["---"] * len(head))  # type: ignore[misc]
        yield from lines  # type: ignore[misc]

    return "\n".join(f"| {' | '.join(cells)} |" for cells in text())
