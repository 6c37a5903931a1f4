from __future__ import annotations

from typing import TYPE_CHECKING

import anymap
from anymap import _backend_choice
from anymap._config import layers
from anymap._explain import explain

if TYPE_CHECKING:
    import argparse

__all__ = ["add_to"]


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``anymap config``: what is set here, and where."""
    parser = commands.add_parser("config", help="print every setting, its value here, and where that comes from")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:  # noqa: ARG001 - every command is called with its options
    explain()
    _check_backends()
    return 0


def _check_backends() -> None:
    """Raise a ``ConfigError`` for options that the backend they are for does not know or take."""
    config = layers.current()
    for info in anymap.available_backends():
        if info.available and config.options(info.name):
            _backend_choice.made(config, info.name)
