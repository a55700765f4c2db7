"""Prints the figures of the README and of closing notes; each is also a test.

Usage: python benchmarks/claims.py [sweep] [bookkeeping] [clearing] [allocations] [recurrent-step] [storages]
       [batch-sizes] [fills] [forward] [parts] [same-search] [same-search-full] [sliding] [capacities] [small-pools]
       [validation] [uncached] [padding] [hit-rate] [bandwidth] [overhead] [compiled]
       (default: all but same-search-full, which takes 35 min)
"""

from __future__ import annotations

import sys

import compiled_claims
import cost_claims
import fill
import model_claims
import pool_claims
import replay_claims
import torch

from kvbench.measure.machine import Machine

CLAIMS = {
    "sweep": replay_claims.sweep,
    "bookkeeping": pool_claims.bookkeeping,
    "clearing": pool_claims.clearing,
    "allocations": pool_claims.allocations,
    "recurrent-step": replay_claims.recurrent_step,
    "storages": replay_claims.storages,
    "batch-sizes": replay_claims.batch_sizes,
    "fills": lambda: fill.main(["--markdown"]),
    "forward": lambda: fill.main(["--forward", "--no-check", "--seeds", "0", "--markdown"]),
    "parts": cost_claims.parts,
    "same-search": model_claims.same_search,
    "same-search-full": model_claims.same_search_full,
    "sliding": model_claims.sliding,
    "capacities": model_claims.capacities,
    "small-pools": model_claims.small_pools,
    "validation": model_claims.validation,
    "uncached": model_claims.uncached,
    "padding": model_claims.padding,
    "hit-rate": replay_claims.hit_rate,
    "bandwidth": cost_claims.bandwidth,
    "overhead": cost_claims.overhead,
    "compiled": compiled_claims.compiled,
}


LONG = ("same-search-full",)


def main(names: list[str]) -> None:
    unknown = set(names) - set(CLAIMS)
    if unknown:
        sys.exit(f"{__doc__}\nunknown: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    print(Machine.describe())
    for name in names or (name for name in CLAIMS if name not in LONG):
        CLAIMS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
