"""What the dask backend is made of."""
