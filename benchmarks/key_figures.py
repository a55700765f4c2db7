"""What verified and chained keys cost, and what chained keys find: ``python benchmarks/key_figures.py cost``.

``cost``: recurrent steps of the cache alone, with distinct latents and windows that slide. The ways to make keys take
turns, step by step. Differences are to plain keys in the same turn.

``traces``: recorded traces replayed with their own keys, and with keys chained along each lookup's node. A trace has no
actions: each child of a node counts as one of its own, as in a search.

``searches``: whole searches of the world model with either kind of key, in turns.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import verify_replay
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step, read_steps
from kvcache import GEOMETRIES, CacheBackend, CacheConfig, Scope, make_backend
from kvcache.chain import Chain, begun, extended
from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig, play

GEOMETRIES_OF_COST = ("cartpole", "lunarlander", "wide")
WAYS = ("plain", "verified", "chained", "chained, verified")
DEPTH = 10  # steps from one clear to the next


class Stepper:
    """Recurrent steps of one cache with one kind of key."""

    def __init__(self, geometry: str, way: str) -> None:
        shape = GEOMETRIES[geometry]
        self.cache: CacheBackend = make_backend("new", CacheConfig(shape, verify_keys="verified" in way))
        self.chain = Chain() if "chained" in way else None
        self.envs = list(range(shape.env_num))
        self.tokens = torch.randn(shape.env_num, shape.num_heads, 2, shape.head_dim)
        self.parents: tuple[np.ndarray, Sequence[int]] | None = None

    def step(self, latents: torch.Tensor) -> float:
        """Seconds of one step to new latents ``[B, 1, E]``, from those of the last one."""
        start = time.perf_counter()
        keys = [None] * len(self.envs) if self.parents is None else self._looked_up(*self.parents)
        self.cache.lookup(self.envs, keys, Scope.NODE)
        self.cache.assemble()
        before = time.perf_counter() - start
        for layer in self.cache.keys_values_wm:
            layer.update(self.tokens, self.tokens)
        start = time.perf_counter()
        stored = self.cache.hash_states(latents)
        if self.chain is not None:
            self.chain.begin(keys)
            stored = self.chain.extend(stored, [b"8 bytes."] * len(stored), [0] * len(stored))
        self.cache.store(self.envs, stored, Scope.NODE)
        seconds = before + time.perf_counter() - start
        self.parents = latents.numpy(), stored
        return seconds

    def _looked_up(self, latents: np.ndarray, keys: Sequence[int]) -> Sequence[int]:
        return keys if self.chain is not None else self.cache.hash_states(latents)

    def clear(self) -> None:
        self.cache.clear_recur_cache()
        self.parents = None


def cost(geometry: str, steps: int) -> dict[str, tuple[float, float, float]]:
    """Of each way: microseconds a step, and the quartiles of what it takes more than plain keys in the same turn."""
    steppers = {way: Stepper(geometry, way) for way in (*WAYS, "plain again")}
    shape, seconds = GEOMETRIES[geometry], {way: [] for way in steppers}
    gc.disable()
    for number in range(steps):
        latents = torch.randn(shape.env_num, 1, shape.embed_dim)
        first = number % len(steppers)  # forth and back would run the last one twice, on warm memory
        for way in (*list(steppers)[first:], *list(steppers)[:first]):
            if number % DEPTH == 0:
                steppers[way].clear()
            seconds[way].append(steppers[way].step(latents))
    gc.enable()
    plain = np.array(seconds["plain"])
    return {
        way: (1e6 * float(np.median(each)), *(1e6 * np.percentile(np.array(each) - plain, (50, 75))))
        for way, each in seconds.items()
    }


def chained(steps: Iterable[Step]) -> Iterator[Step]:
    """The same steps with chained keys."""
    stored: dict[int, int] = {}  # row of a store event -> key
    children: Counter[int] = Counter()
    for step in steps:
        parents, contexts = [], []
        for parent, node, hit in zip(step.parents, step.nodes, step.recorded_hits, strict=True):
            key = None if parent is None else begun(parent) if node is None else stored[node]
            parents.append(key)
            contexts.append(begun(parent) if parent is not None and hit is False else key)
        keys = []
        for store, latent_key, context in zip(step.stores, step.keys, contexts, strict=False):
            if context is None:
                stored[store] = begun(latent_key)
            else:
                children[context] += 1
                stored[store] = extended(context, latent_key, children[context].to_bytes(8, "little"))
            keys.append(stored[store])
        yield replace(step, parents=parents, keys=keys)


def outcomes(reader: TraceReader, steps: list[Step], slots: int | None) -> Counter[Outcome]:
    """Of the recurrent lookups, in the new cache."""
    geometry = reader.header.geometry
    cache = make_backend("new", CacheConfig(geometry, recur_pool_size=slots))
    contents = Contents(geometry)
    cache.position_shift = contents.position_shift("cpu", torch.float32)
    found = verify_replay(cache, steps, contents, Latents(geometry.embed_dim, "cpu"))
    assert not found.faults, found.faults[0]
    return found.outcomes.node


def traces(paths: Sequence[Path], searches: int | None) -> None:
    print("trace, slots | lookups | keys | hit, % | miss, % | context mismatch, %")
    for path in paths:
        reader = TraceReader(path)
        steps = list(read_steps(reader.events(), searches))
        whole = reader.header.geometry.num_simulations * reader.header.geometry.env_num
        for slots in (whole, whole // 4):
            for kind, replayed in (("latents'", steps), ("chained", list(chained(steps)))):
                found = outcomes(reader, replayed, slots)
                total = sum(found.values())
                cells = (Outcome.HIT, Outcome.MISS, Outcome.CONTEXT_MISMATCH)
                shares = " | ".join(f"{100 * found[each] / total:.2f}" for each in cells)
                print(f"{path.stem}, {slots} | {total} | {kind} | {shares}", flush=True)


def searches(geometry: str, count: int) -> None:
    """Print medians of whole searches."""
    config = WorldModelConfig(GEOMETRIES[geometry], use_new_cache_manager=True)
    models = {kind: WorldModel(replace(config, chained_keys=kind == "chained")) for kind in ("latents'", "chained")}
    playing = {
        kind: play(each, count, 0, SearchConfig(config.geometry.num_simulations)) for kind, each in models.items()
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in models}
    visits: dict[str, list[np.ndarray]] = {kind: [] for kind in models}
    for number in range(count):
        for kind in list(models)[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            visits[kind].append(next(playing[kind]).result.visit_counts)
            seconds[kind].append(time.perf_counter() - start)
    ratios = np.divide(seconds["chained"], seconds["latents'"])
    same = sum(map(np.array_equal, *visits.values()))
    print(
        f"{geometry}: {same} of {count} searches with the same visits; chained ones take {np.median(ratios):.3f} times"
    )
    for kind, model in models.items():
        stats = model.cache.hierarchy_stats
        print(f"  {kind}: {1e3 * np.median(seconds[kind]):.1f} ms, {stats.hits} hits, {stats.misses} misses")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "traces", "searches"])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--searches", type=int, help="of each trace, or of the model; by default all, or 20")
    parser.add_argument("--trace", type=Path, action="append", help="by default those of benchmarks/traces")
    parser.add_argument("--geometry", choices=list(GEOMETRIES), action="append")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.what == "traces":
        traces(options.trace or sorted((Path(__file__).parent / "traces").glob("*.parquet")), options.searches)
        return
    for geometry in options.geometry or GEOMETRIES_OF_COST:
        if options.what == "searches":
            searches(geometry, options.searches or 20)
            continue
        for way, (median, more, upper) in cost(geometry, options.steps).items():
            print(f"{geometry}, {way}: {median:.1f} us a step, {more:+.1f} (quartile {upper:+.1f})", flush=True)


if __name__ == "__main__":
    main()
