"""Three threads on one cache: with ``thread_safe`` all that they find is right, without it they are refused by name.

Full form: ``pytest tests/reliability/test_many_threads.py --reliability=full``.
"""

import pytest
from histories import BACKENDS, GEOMETRY, cache_of, compete
from invariants import check_invariants

from kvcache import ThreadError

THREADS, CALLS_PER_INFERENCE = 3, 4  # lookup, assemble, store, and one supply or more
CALLS = {False: 360, True: 35_000}


@pytest.mark.parametrize("backend", BACKENDS)
def test_three_threads(backend, is_full, figure):
    inferences = -(-CALLS[is_full] // (THREADS * CALLS_PER_INFERENCE))
    cache = cache_of(backend, thread_safe=True, recur_pool_size=9, init_pool_size=7)
    errors = compete(cache, inferences, THREADS)
    figure(
        f"threads: {backend}, thread_safe: {inferences * THREADS * CALLS_PER_INFERENCE:,} calls of {THREADS} threads, "
        f"{len(errors)} wrong"
    )
    assert not errors, errors[:3]
    check_invariants(getattr(cache, "_backend", cache))


@pytest.mark.parametrize("backend", [*BACKENDS, "legacy"])
def test_without_it(backend, figure):
    errors = compete(cache_of(backend, recur_pool_size=400, init_pool_size=400), 50, THREADS)
    assert [type(error) for error in errors] == [ThreadError] * (THREADS - 1)
    assert GEOMETRY.env_num == 2
    figure(f"threads: {backend}: {THREADS - 1} of {THREADS} threads refused by ThreadError")
