from __future__ import annotations

from typing import TYPE_CHECKING

import anymap
from anymap._cli._table import table

if TYPE_CHECKING:
    import argparse

    from anymap import BackendInfo

__all__ = ["add_to"]


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``anymap backends``: what there is, what it can do, and what to install for the rest."""
    parser = commands.add_parser("backends", help="list the backends and what each is like")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:  # noqa: ARG001 - every command is called with its options
    rows = [[info.name, "yes" if info.available else "no", _remark(info)] for info in anymap.available_backends()]
    print(table(["backend", "here", "traits, or what is missing"], rows))
    return 0


def _remark(info: BackendInfo) -> str:
    if not info.available:
        return f"{info.reason}; {info.install}"
    return ", ".join(trait.replace("_", " ") for trait, has in info.traits.items() if has)
