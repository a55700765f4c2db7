"""Exceptions at every line of the core, over random histories: nothing wrong is found afterwards.

Full form: ``pytest tests/reliability/test_faults.py --reliability=full``.
"""

import logging
import random

import pytest
from histories import BACKENDS, History, Interrupt, NoMemoryError, anything, cache_of, interrupted, lines_of
from invariants import check_invariants

SEEDS = {False: range(1), True: range(8)}  # of histories, each interrupted at every line of its last call
STRIDE = {False: 17, True: 1}  # lines from one injection to the next
AFTERWARDS = 4  # calls whose results are checked
STRATEGIES = ["fifo", "lru", "priority", "s3-fifo", "sieve", "tree"]


def history_of(backend, seed):
    """A history of some calls, and the choices for the next ones: the same at every call of this."""
    choose = random.Random(seed)
    strategy = STRATEGIES[seed % len(STRATEGIES)]
    options = {"eviction_strategy": strategy, "recur_pool_size": 2 + seed % 4, "init_pool_size": 3}
    history = History(cache_of(backend, **options))
    for _ in range(2 + seed % 4):
        anything(history, choose)()
    return history, choose


def injected(backend, seed, at, error):
    """Raise at one line, then go on and check. Returns whether there was such a line."""
    history, choose = history_of(backend, seed)
    raised = interrupted(history, anything(history, choose), at, error)
    for _ in range(AFTERWARDS):
        anything(history, choose)()
    check_invariants(getattr(history.cache, "_backend", history.cache), counts=False)
    return raised


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_at_every_line(backend, is_full, figure, caplog):
    caplog.set_level(logging.ERROR)  # each repair is a warning
    count, wrong = 0, []
    for seed in SEEDS[is_full]:
        history, choose = history_of(backend, seed)
        for at in range(1 + seed % STRIDE[is_full], lines_of(anything(history, choose)) + 1, STRIDE[is_full]):
            error = (Interrupt, NoMemoryError)[(seed + at) % 2]
            try:
                count += injected(backend, seed, at, error)
            except AssertionError as found:
                wrong.append(f"seed {seed}, line {at}, {error.__name__}: {found}")
    figure(f"exceptions: {backend}: {count:,} injected, {len(wrong)} wrong afterwards")
    assert count
    assert not wrong, wrong[:5]
