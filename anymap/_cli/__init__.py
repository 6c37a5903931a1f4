"""The program ``anymap``: what backends there are here, a demonstration on each of them, and an exam for any."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import anymap
from anymap._cli import backends, check_backend, config, demo
from anymap._errors import AnymapError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

USAGE = 2
"""The exit status of argparse for a command line that makes no sense."""
INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C ended: 128 + SIGINT."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments, by default those of the command line; return its exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        status: int = options.run(options)
        # A reader that is gone is met here, where it can be answered, and not at exit, where Python would complain.
        sys.stdout.flush()
    except AnymapError as error:
        print(f"anymap: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="anymap", description="One map call, any engine.")
    parser.add_argument("--version", action="version", version=f"anymap {anymap.__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="command")
    demo.add_to(commands)
    backends.add_to(commands)
    check_backend.add_to(commands)
    config.add_to(commands)
    return parser
