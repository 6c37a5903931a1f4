"""Measures anymap beside its peers. Not installed with it: run ``python -m benchmarks`` in a checkout."""
