"""Very many recurrent steps on a small pool: every invariant holds, and memory does not grow.

Full form, a million steps of each storage: ``pytest tests/reliability/test_long_runs.py --reliability=full``.
"""

import random
import time
from pathlib import Path

import pytest
import torch
from invariants import check_invariants

from kvcache import MISS, CacheConfig, Geometry, KeysValues, Scope, make_backend

GEOMETRY = Geometry("tiny", 1, 1, 2, context_length=6, env_num=1, num_simulations=8, positions="absolute")
KEYS = 24  # for 8 slots: most steps evict, some update
STEPS = {False: 3_000, True: 1_000_000}
CHECKED_EVERY = {False: 500, True: 10_000}
MOST_GROWTH = 8 << 20  # bytes of the process, from the first tenth on
LARGEST = 1 << 20  # of numbers in contents: small enough to be exact after slides
BACKENDS = ["new:private", "new:slab", "new:paged", "new:paged-resident"]


class Run:
    """Steps of one row, and what each key holds."""

    def __init__(self, backend, seed):
        self.cache = make_backend(backend, CacheConfig(GEOMETRY))
        self.cache.position_shift = torch.ones(1, 2, 1, GEOMETRY.slid_size, 2)
        self.choose = random.Random(seed)
        self.contents = {}
        self.new = torch.zeros(1, 1, 2, 2)
        self.supplied = KeysValues(1, 1, GEOMETRY.context_length, 2, 1)
        self.supplied[0].update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))

    def step(self, number):
        cache, parent, key = self.cache, self.choose.randrange(KEYS), self.choose.randrange(KEYS)
        (size,) = cache.lookup([0], [parent], Scope.NODE)
        if size == MISS:
            cache.supply(0, self.supplied)
            context = [1.0]
        else:
            context = self.contents[parent]
            assert size == len(context)
        cache.assemble()
        value = float(number % LARGEST)
        self.new.fill_(value)
        cache.keys_values_wm[0].update(self.new, self.new)
        cache.store([0], [key], Scope.NODE)
        context = [*context, value, value]
        first, count = GEOMETRY.window(len(context))
        self.contents[key] = [each + bool(first) for each in context[first : first + count]]

    def check(self):
        """The invariants, and the content of every entry."""
        check_invariants(self.cache)
        pool = self.cache.recur_pool
        assert len(pool) == pool.pool_size
        for key in pool:
            found = pool.get(key)
            for each in found[0].get():
                assert each[0, 0, :, 0].tolist() == each[0, 0, :, 1].tolist() == self.contents[key]


def resident_bytes():
    """Of this process, as Linux counts them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps(backend, is_full, figure):
    run, steps = Run(backend, 0), STEPS[is_full]
    start, reserved, resident = time.perf_counter(), set(), []
    for number in range(1, steps + 1):
        run.step(number)
        if number % CHECKED_EVERY[is_full] == 0:
            run.check()
            if number >= steps // 10:
                reserved.add(sum(run.cache.bytes_reserved.values()))
                resident.append(resident_bytes())
    grown = max(resident) - resident[0]
    figure(
        f"steps: {backend}: {steps:,}, {steps // CHECKED_EVERY[is_full]} checks, {grown / 2**20:+.1f} MiB of the "
        f"process, {len(reserved)} value of all bytes_reserved, {time.perf_counter() - start:.0f} s"
    )
    assert len(reserved) == 1
    assert grown < MOST_GROWTH
