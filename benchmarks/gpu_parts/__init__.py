"""What ``benchmarks/gpu.py`` runs on a card: each part is a function of a ``Setting`` that yields rows."""
