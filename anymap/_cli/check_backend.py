from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from anymap._errors import ConfigError
from anymap.backends import Backend, _registry

if TYPE_CHECKING:
    from anymap.testing import Outcome

__all__ = ["add_to"]

BROKEN = 1
"""The exit status where a promise is broken."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``anymap check-backend``: the exam that every backend sits."""
    parser = commands.add_parser(
        "check-backend",
        help="examine a backend: which of its promises does it keep?",
        description="Examine a backend, promise by promise. The exit status is 0 if it breaks none, else 1.",
    )
    parser.add_argument("name", metavar="NAME", help="its name, or where its class is: module:Class")
    parser.add_argument(
        "--patience", type=_seconds, default=30.0, metavar="SECONDS", help="for each promise (default: 30)"
    )
    parser.add_argument(
        "--startup", type=_seconds, default=60.0, metavar="SECONDS", help="for the engine to start (default: 60)"
    )
    parser.set_defaults(run=_run)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def _run(options: argparse.Namespace) -> int:
    from anymap.testing.suite import all_promises, examine  # noqa: PLC0415 - the other commands have no need of it

    backend = _find(options.name)
    promises = all_promises()
    width = max(map(len, promises))
    _print_row("verdict", "promise", "how it was broken, or why it does not apply", width)
    report = examine(
        backend,
        patience=options.patience,
        startup=options.startup,
        tell=lambda outcome: _print_outcome(outcome, width),
    )
    _print_broken(report.outcomes)
    counts = f"{len(report.kept)} kept, {len(report.broken)} broken, {len(report.not_applicable)} not applicable"
    print(f"\n{options.name}: {len(promises)} promises, {counts}")
    return BROKEN if report.broken else 0


def _find(name: str) -> type[Backend]:
    if ":" not in name:
        return _registry.find(name)
    # Where its author is at work; a program that was installed does not look there by itself.
    sys.path.insert(0, os.getcwd())
    try:
        found: object = _registry.load(name)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"there is no backend at {name!r}: {exc}") from exc
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise ConfigError(f"{name!r} is no backend's class, but {found!r}")
    return found


def _print_outcome(outcome: Outcome, width: int) -> None:
    _print_row(outcome.verdict, outcome.promise, outcome.detail.partition("\n")[0], width)


def _print_row(verdict: str, promise: str, detail: str, width: int) -> None:
    # At once: it is also how far the exam is.
    print(f"{verdict:14}  {promise:{width}}  {detail}".rstrip(), flush=True)


def _print_broken(outcomes: tuple[Outcome, ...]) -> None:
    """Say again, and in full, what is wrong: it may stand a long way up."""
    for outcome in outcomes:
        if outcome.verdict == "broken":
            print(f"\nbroken: {outcome.promise}\n  " + outcome.detail.rstrip().replace("\n", "\n  "))
