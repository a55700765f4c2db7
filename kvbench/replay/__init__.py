"""Replaying a trace: what drives a backend, what each token holds, and what a lookup returned."""
