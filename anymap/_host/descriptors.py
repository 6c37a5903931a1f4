"""File descriptors of ours, and whether they still are: a program that becomes a daemon closes all that there are.

Their numbers go to whatever it opens next. To write to such a number, or to close it, would hit a file of the program's.
"""

from __future__ import annotations

import os
import selectors

# Not epoll: it has a descriptor of its own, whose number may be that of another file when it is closed.
Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Descriptor:
    """A file descriptor of a socket, a pipe or a file, as it was when this was made."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._identity = _identity(number)
        self._closed = False

    def is_ours(self) -> bool:
        """Tell whether nothing but ourselves has closed it."""
        return self._closed or _identity(self.number) == self._identity

    def close(self) -> None:
        """Close it, unless that has been done."""
        if not self._closed and self.is_ours():
            self._closed = True
            os.close(self.number)


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino
