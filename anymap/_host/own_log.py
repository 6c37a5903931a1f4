"""What this package has to say for itself, in the log ``anymap``.

Saying it never raises: where no handler is set and ``sys.stderr`` is closed, ``logging`` itself does.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any


def warning(message: str, *args: Any, exc_info: BaseException | None = None) -> None:
    with suppress(Exception):
        logging.getLogger("anymap").warning(message, *args, exc_info=exc_info, stacklevel=2)


def exception(message: str, *args: Any) -> None:
    """Log an error with the exception that is being handled."""
    with suppress(Exception):
        logging.getLogger("anymap").error(message, *args, exc_info=True, stacklevel=2)  # noqa: LOG014 - as it says
