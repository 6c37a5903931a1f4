"""The workspace of a map whose workers share this host: a folder for what is too large for a pipe, and a board.

To make both takes longer than to do a small map, so a workspace that is left clean is kept for the next one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from anymap._host import forks, lifecycle, spill
from anymap._host.status_board import Board

_SLOTS_A_WORKER, _FEWEST_SLOTS = 8, 127
"""Four times as many chunks as can be in flight; at least as many as fit into two pages."""
_KEPT = 4
"""Workspaces. So many maps may take turns."""


@dataclass(slots=True, eq=False)
class Workspace:
    """What one map works with, and no other map meanwhile."""

    folder: str
    board: Board

    def is_there(self) -> bool:
        """Tell whether it is still there."""
        return self.board.path is not None and os.path.exists(self.board.path)

    def is_bare(self) -> bool:
        """Tell whether there is nothing in it but the board."""
        return self.board.path is not None and spill.holds_only(self.folder, self.board.path)

    def clear_away(self) -> None:
        self.board.close()
        spill.remove_folder(self.folder)


_lock = forks.Lock()
_kept: list[Workspace] = []


def take(workers: int) -> Workspace:
    """Return a workspace for a map of so many workers. Raises ``OSError`` where there is no room for it."""
    spill.keep_locks()
    slots = max(_SLOTS_A_WORKER * workers, _FEWEST_SLOTS)
    while (workspace := _next_kept()) is not None:
        if workspace.board.slots >= slots and workspace.is_there():
            return workspace
        workspace.clear_away()
    return _made(slots)


def give_back(workspace: Workspace, *, clean: bool) -> None:
    """Take a workspace back. ``clean``: no worker uses it any more, and there is nothing in it but the board."""
    if clean:
        workspace.board.wipe()
        with _lock:
            if len(_kept) < _KEPT:
                _kept.append(workspace)
                return
    workspace.clear_away()


def _next_kept() -> Workspace | None:
    with _lock:
        return _kept.pop() if _kept else None


def _made(slots: int) -> Workspace:
    lifecycle.at_shutdown(_clear_all_away)
    folder = spill.make_folder()
    try:
        return Workspace(folder, Board(folder, slots))
    except OSError:
        spill.remove_folder(folder)
        raise


def _clear_all_away() -> None:
    while (workspace := _next_kept()) is not None:
        workspace.clear_away()


# They are the parent's.
forks.in_child(_kept.clear)
