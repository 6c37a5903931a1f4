"""What the backend ``joblib`` is made of: one module for each kind of engine that joblib runs on."""
