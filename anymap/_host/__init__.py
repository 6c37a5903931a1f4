"""The operating system, as the rest of the package sees it."""
