"""The engine: what a map means, on whatever backend."""
