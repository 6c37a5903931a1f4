"""What the processes backend is made of."""
