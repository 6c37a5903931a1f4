"""What of the caller's environment an item finds."""
