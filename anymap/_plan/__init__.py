"""Arguments and settings become one plan; nothing is started here."""
