"""What the user's function may call inside an item."""
