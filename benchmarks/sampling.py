"""Prints how far samples of a recorded search are off: of whole searches, and of keys as SHARDS takes them.

``python benchmarks/sampling.py`` (a minute). A row has the share of recurrent lookups that LRU's recurrent pool finds.
Then how many points a sample of a quarter is off: the mean of some samples, and the most. The pool of a quarter of the
keys is a quarter, too. Histories are left out: a sample of keys has none. The numbers are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import mean

import numpy as np

from kvbench.capacity.requests import Requests
from kvbench.replay.content import mix_rows
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step
from kvcache import KVCachePool

FOLDER = Path(__file__).parent / "traces"
TRACES = ("cartpole", "lunarlander", "minigrid", "pong")
PART = 4  # a sample is one of so many
SAMPLES = 5
SLOTS = (50, 100)


def found_share(steps: Iterable[Step], slots: int, part: int = 1, seed: int = 0) -> float:
    """Found recurrent lookups that no root of the search answers, %; of a ``part`` of the keys, in as small a pool."""
    pool, roots = KVCachePool(max(1, round(slots / part)), "lru", storage="reference"), set[int | None]()
    asked = found = 0
    for step in steps:
        if not step.is_recurrent:
            roots = set(step.keys)
        for key in step.parents if step.is_recurrent else ():
            if key not in roots and _is_sampled(key, part, seed):
                asked += 1
                found += pool.get(key) is not None
        for key in step.keys if step.is_recurrent else ():
            if _is_sampled(key, part, seed):
                pool.set(key, True)
        if step.clears:
            pool.clear()
    return 100 * found / max(asked, 1)


def _is_sampled(key: int | None, part: int, seed: int) -> bool:
    return part == 1 or bool(mix_rows(np.uint64(seed), np.uint64(key))[0] % np.uint64(part) == 0)


def of_searches(steps: list[Step], seed: int) -> list[Step]:
    """A part of the searches, whole."""
    searches = np.unique([step.search for step in steps]).astype(np.uint64)
    chosen = searches[np.argsort(mix_rows(np.uint64(seed), searches))][: len(searches) // PART].tolist()
    return [step for step in steps if step.search in chosen]


def main() -> None:
    columns = [f"1/{PART} of the {what}: mean, most" for what in ("searches", "keys")]
    print(f"| trace | slots | found, % | {' | '.join(columns)} |\n|---|---|---|---|---|")
    for name in TRACES:
        steps = list(Requests(TraceReader(FOLDER / f"{name}-lightzero-0.2.0-seed0.parquet")))
        for slots in SLOTS:
            whole = found_share(steps, slots)
            by_search = [abs(found_share(of_searches(steps, seed), slots) - whole) for seed in range(SAMPLES)]
            by_key = [abs(found_share(steps, slots, PART, seed) - whole) for seed in range(SAMPLES)]
            cells = [f"{mean(each):.1f}, {max(each):.1f}" for each in (by_search, by_key)]
            print(f"| {name} | {slots} | {whole:.1f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
