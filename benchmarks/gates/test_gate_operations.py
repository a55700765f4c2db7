"""Single operations, one call a round."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product

import pytest
from suite.bridge import storages

# Written out: what is watched does not depend on what is installed. What a commit lacks is skipped, with the reason.
KINDS = ["hash", "lookup", "assemble_equal", "assemble_unequal", "retrieve", "store", "slide", "clear"]
GEOMETRIES = ["cartpole", "pong", "visual-match", "multitask"]
BACKENDS = storages(["new:private", "new:slab", "new:paged", "new:paged-resident", "new:paged-exact"])
# All storages hash and look up by the same code: of the others only what is their own, where it is cheap and where it
# is not. A gate that measures more decides less in its time.
OWN_KINDS = ["assemble_equal", "assemble_unequal", "store", "slide", "clear"]
OWN_GEOMETRIES = ["pong", "visual-match"]
CELLS = [*product(BACKENDS[:1], GEOMETRIES, KINDS), *product(BACKENDS[1:], OWN_GEOMETRIES, OWN_KINDS)]

ROWS = 8
ROUNDS = 200
ROUNDS_OF_LARGE_ENTRIES = 60
LARGE_ENTRY = 1 << 20  # bytes
# Where memory happens to lie decides some of a process's speed: each measures several layouts.
FOOTINGS = 4


@pytest.mark.parametrize(("backend", "geometry", "kind"), CELLS)
def test_operation(benchmark, kind, geometry, backend, wants_metrics, wants_times):
    from kvbench.replay.operations import operation_config, prepare_operation
    from kvcache import BACKENDS as AVAILABLE
    from kvcache import GEOMETRIES as SHAPES
    from kvcache import make_backend

    if backend not in AVAILABLE:
        pytest.skip(f"this commit has no backend {backend!r}")
    shape = SHAPES[geometry]
    config = operation_config(shape, ROWS)

    def fresh():
        return prepare_operation(kind, make_backend(backend, config))

    if wants_metrics:
        benchmark.extra_info["metrics"] = asdict(fresh().counts())
    benchmark.extra_info["timed"] = wants_times
    rounds = (ROUNDS_OF_LARGE_ENTRIES if shape.entry_bytes() >= LARGE_ENTRY else ROUNDS) if wants_times else FOOTINGS
    operation = None
    done = 0

    def prepare():
        nonlocal operation, done
        if done % (rounds // FOOTINGS) == 0:
            operation = fresh()
            operation.prepare()
            operation.call()
        done += 1
        operation.prepare()
        return (operation.call,), {}

    benchmark.pedantic(_call, setup=prepare, rounds=rounds)
    operation.check()


def _call(call):
    call()
