"""The operating system of this host."""
