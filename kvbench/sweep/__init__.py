"""Sweeps: the cells of a plan, spread over workers with Dask."""
