"""Where settings come from: code, the environment, a file; and which of them holds."""
