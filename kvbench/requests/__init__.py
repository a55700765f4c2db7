"""Requests of other systems: traces of keys and sizes without a search behind them."""
