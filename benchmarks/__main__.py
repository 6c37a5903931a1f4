"""``python -m benchmarks``: list what there is; with names, run those; ``report`` and ``growth`` make the page."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import gauge, growth, harness, report, work
from benchmarks.workloads import WORKLOADS


def main() -> None:
    """Do what the command line says."""
    arguments = _parser().parse_args()
    match arguments.names:
        case []:
            _list()
        case ["report", *files]:
            report.write([json.loads(Path(file).read_text()) for file in files])
        case ["growth", *names]:
            _keep(growth.measure(names, **_how(arguments)), arguments.json)
        case ["plot", *files]:
            growth.plot([json.loads(Path(file).read_text()) for file in files])
        case names:
            _run(names, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", help='workloads, or "all"; "report FILE..."; "growth [NAME...]"; "plot FILE..."'
    )
    parser.add_argument("--rounds", type=int, default=9, help="how often each contender has a turn (9)")
    parser.add_argument("--seed", type=int, default=1, help="of the order in a round (1)")
    parser.add_argument("--json", type=Path, help="keep all numbers in this file")
    parser.add_argument("--quick", action="store_true", help="much less work: only to see that everything works")
    parser.add_argument("--only", default="", help="only contenders whose name contains this, and references")
    return parser


def _list() -> None:
    for workload in WORKLOADS.values():
        if not workload.hidden:
            print(f"{workload.name:18}{workload.title}")


def _how(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("rounds", "seed", "quick")} | {"say": _say}


def _run(names: list[str], arguments: argparse.Namespace) -> None:
    if unknown := [name for name in names if name not in WORKLOADS and name != "all"]:
        sys.exit(f"no workload {', '.join(unknown)}; `python -m benchmarks` lists what there is")
    if "all" in names:
        names = [name for name, workload in WORKLOADS.items() if not workload.hidden]
    turns = work.turns_per_second()
    found = _frame(arguments)
    for name in names:
        workload = WORKLOADS[name]
        params = workload.settle(quick=arguments.quick, turns_per_second=turns)
        contenders = [one for one in workload.contenders if arguments.only in one.name or one.role == "reference"]
        records = harness.compete(workload, contenders, params, arguments.rounds, arguments.seed, _say)
        found["workloads"][name] = harness.results(workload, params, records)
        _keep(found, arguments.json)
        _say("")
        print(report.table(name, found["workloads"][name]), end="\n\n", flush=True)


def _frame(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "machine": gauge.machine(),
        "versions": gauge.versions(),
        "rounds": arguments.rounds,
        "quick": arguments.quick,
        "workloads": {},
    }


def _keep(found: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")


def _say(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
