from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anymap
from anymap._config import layers
from anymap._errors import AnymapError, ConfigError
from anymap._plan import choice
from anymap._plan.explain import explain
from anymap.progress._resolve import check

if TYPE_CHECKING:
    import argparse

__all__ = ["add_to"]

WRONG = 1
"""The exit status where a setting is wrong."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``anymap config``: what is set here, and where."""
    parser = commands.add_parser("config", help="print every setting, its value here, and where that comes from")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:  # noqa: ARG001 - every command is called with its options
    try:
        explain()
        anymap.selection()
        _check_progress()
        _check_backends()
    except AnymapError as error:
        print(f"anymap: {error}", file=sys.stderr)
        return WRONG
    return 0


def _check_progress() -> None:
    said = layers.current().said("progress")
    if said is None:
        return
    try:
        check(said.value)
    except ConfigError as exc:
        raise ConfigError(f"{said.origin}: {exc}") from None


def _check_backends() -> None:
    """Raise a ``ConfigError`` for options that the backend they are for does not know or take."""
    config = layers.current()
    for info in anymap.available_backends():
        if info.available and config.options(info.name):
            choice.made(config, info.name)
