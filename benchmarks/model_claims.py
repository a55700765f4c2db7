"""Results of the world model's searches and predictions, by cache; printed by ``claims.py``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from lookups import CountMisses, Misses, MissLike, MissWhereStale

from kvcache import GEOMETRIES, POSITIONS, Geometry, ObservedCache
from kvcache.world_model import Played, SearchConfig, WorldModel, WorldModelConfig, play

__all__ = [
    "capacities",
    "padding",
    "same_search",
    "same_search_full",
    "sliding",
    "small_pools",
    "uncached",
    "validation",
]

SEARCHES = 50
CACHES: dict[str, dict[str, Any]] = {
    "legacy": {},
    **{
        f"new:{storage}": {"use_new_cache_manager": True, "cache_storage": storage}
        for storage in ("reference", "private", "slab", "paged")
    },
    "new:paged-resident": {"use_new_cache_manager": True, "cache_storage": "paged", "cache_resident_batch": True},
}
# A search of all others takes five seconds: 50 of them on six caches, with both kinds of positions, an hour.
AFFORDABLE = ("cartpole", "lunarlander", "pong", "visual-match")
# Searches and steps of environment 0's episodes, such that visual-match's window slides in the last third of them.
SLIDING = 140, 120
TIMED = {"cartpole": 60, "pong": 16}  # searches


def same_search() -> None:
    """50 searches of 8 environments on every cache, by geometry and kind of positions: are they the same?"""
    for name, geometry in GEOMETRIES.items():
        for positions in POSITIONS:
            # Deep enough for windows to slide within a search, where contexts are short.
            _compare(name, replace(geometry, positions=positions, num_simulations=8))


def same_search_full() -> None:
    """The same with the geometries' own numbers of simulations, where that is affordable."""
    for name in AFFORDABLE:
        for positions in POSITIONS:
            shape = replace(GEOMETRIES[name], positions=positions)
            _compare(f"{name}, {shape.num_simulations} simulations", shape)


def sliding() -> None:
    """The same with a long context, and episodes that are longer than it."""
    searches, steps = SLIDING
    for positions in POSITIONS:
        shape = replace(GEOMETRIES["visual-match"], positions=positions, num_simulations=4)
        wanted = _compare(f"visual-match, episodes of {steps} steps and more", shape, searches, steps)
        slid = sum(size == shape.slid_size for each in wanted for size in each.roots.sizes)
        print(f"visual-match, {positions}: {slid} of {searches * shape.env_num} roots had a window that slid")


def capacities() -> None:
    """The same in recurrent pools of all capacities, from large ones down to where legacy has its first stale hits."""
    for name in ("cartpole", "pong"):
        for positions in POSITIONS:
            shape = replace(GEOMETRIES[name], positions=positions, num_simulations=8)
            whole = shape.num_simulations * shape.env_num
            slots = 2 * whole
            while slots and not (stale := _stale_hits(shape, slots)):
                _compare(f"{name}, {slots} recurrent slots", shape, recur_pool_size=slots)
                slots -= whole if slots > whole else shape.env_num
            print(f"{name}, {positions}, {slots} recurrent slots: legacy has {stale} stale hits")


def small_pools() -> None:
    """Small pools make searches differ: how much by legacy's stale hits, and how much by the new cache's misses."""
    for name in ("cartpole", "pong"):
        shape = replace(GEOMETRIES[name], num_simulations=min(25, GEOMETRIES[name].num_simulations))
        slots = shape.num_simulations * shape.env_num // 4
        unlimited = played(shape)
        cleaned = model_of(shape, recur_pool_size=slots)
        observer = MissWhereStale(cleaned.cache)
        cleaned.cache = ObservedCache(cleaned.cache, observer)
        without, found = searched(cleaned), played(shape, recur_pool_size=slots)
        print(
            f"{name}, {slots} recurrent slots, legacy: {_stale_hits(shape, slots)} stale hits, the same as an "
            f"unlimited cache in {_same(found, unlimited)} of {SEARCHES} searches; with misses in their place, as an "
            f"unlimited cache that misses there on purpose in {_same(without, _missing(shape, observer.misses))}",
            flush=True,
        )
        for cache in list(CACHES)[1:]:
            small = model_of(shape, recur_pool_size=slots, **CACHES[cache])
            counter = CountMisses()
            small.cache = ObservedCache(small.cache, counter)
            found = searched(small)
            wanted = _missing(shape, counter.misses)
            print(
                f"{name}, {slots} recurrent slots, {cache}: {sum(map(len, counter.misses))} misses, the same as an "
                f"unlimited cache in {_same(found, unlimited)} of {SEARCHES} searches; the actions and visits of an "
                f"unlimited legacy cache that misses there on purpose in {_same(found, wanted, values=False)}, values "
                f"{_apart(found, wanted):.2g} apart at most",
                flush=True,
            )


def _missing(geometry: Geometry, misses: Misses) -> list[Played]:
    """Searches with an unlimited legacy cache that misses in the given rows."""
    model = model_of(geometry)
    model.cache = ObservedCache(model.cache, MissLike(misses))
    return searched(model)


def validation() -> None:
    """The cost of validation: searches without and with the other cache, in turns."""
    for name, searches in TIMED.items():
        for cache in ("new:paged", "legacy"):
            models = [
                model_of(GEOMETRIES[name], cache_validation_mode=validates, **CACHES[cache])
                for validates in (False, True)
            ]
            ratios = _ratios([play(model, searches, 0) for model in models], searches)
            low, median, high = statistics.quantiles(ratios, n=4)
            print(
                f"{name}, {cache}: a search takes {median:.2f} of what it takes with validation (quartiles {low:.2f} "
                f"to {high:.2f}, {searches} searches in turns)",
                flush=True,
            )


def _ratios(plays: Sequence[Iterator[Played]], searches: int) -> list[float]:
    """Time of the first's searches over that of the second's, the two taking turns."""
    ratios = []
    for number in range(searches):
        seconds = {}
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            next(plays[which])
            seconds[which] = time.perf_counter() - start
        ratios.append(seconds[0] / seconds[1])
    return ratios


def model_of(geometry: Geometry, **settings: Any) -> WorldModel:
    return WorldModel(WorldModelConfig(geometry, **settings))


def searched(model: WorldModel, searches: int | None = None, episode_length: int = 20) -> list[Played]:
    config = SearchConfig(model.geometry.num_simulations)
    return list(play(model, searches or SEARCHES, 0, config, episode_length))


def played(geometry: Geometry, **settings: Any) -> list[Played]:
    return searched(model_of(geometry, **settings))


def _compare(
    label: str, geometry: Geometry, searches: int | None = None, episode_length: int = 20, **settings: Any
) -> list[Played]:
    """Print how alike the searches of every cache are to legacy's, which are returned."""
    start = time.perf_counter()
    results = {
        cache: searched(model_of(geometry, **own, **settings), searches, episode_length)
        for cache, own in CACHES.items()
    }
    seconds, wanted = time.perf_counter() - start, results.pop("legacy")
    alike = (
        f"{cache} {_same(found, wanted, values=False)} ({_apart(found, wanted):.2g})"
        for cache, found in results.items()
    )
    print(
        f"{label}, {geometry.positions}: the same actions and visits as legacy, of {len(wanted)} searches (values "
        f"apart at most): {', '.join(alike)}; {seconds:.0f} s",
        flush=True,
    )
    return wanted


def _same(found: Sequence[Played], wanted: Sequence[Played], values: bool = True) -> int:
    """In how many searches decisions are the same, and values if these count."""
    names = ["actions", "visit_counts"] + ["values"] * values
    return sum(
        all(np.array_equal(getattr(a.result, each), getattr(b.result, each)) for each in names)
        for a, b in zip(found, wanted, strict=True)
    )


def _apart(found: Sequence[Played], wanted: Sequence[Played]) -> float:
    """The largest difference of two root values."""
    return max(float(np.abs(a.result.values - b.result.values).max()) for a, b in zip(found, wanted, strict=True))


def _stale_hits(geometry: Geometry, slots: int) -> int:
    """Legacy's in a recurrent pool of that many slots, by validation."""
    model = model_of(geometry, recur_pool_size=slots, cache_validation_mode=True)
    searched(model)
    assert model.cache.report is not None
    return model.cache.report.stale_hits


def uncached() -> None:
    """Cached root values against those of the raw window with no cache at all, before and after windows slide."""
    print("largest difference of root values, 8 environments, 40 steps, actions at random")
    for name in ("cartpole", "lunarlander", "pong"):
        for positions in POSITIONS:
            geometry = replace(GEOMETRIES[name], positions=positions)
            model = WorldModel(WorldModelConfig(geometry))
            source = np.random.default_rng(0)
            latents: list[np.ndarray] = []
            actions: list[list[int]] = []
            values, off = [], {False: [0.0], True: [0.0]}
            for time_step in range(40):
                taken = source.integers(model.config.action_space_size, size=geometry.env_num).tolist()
                seen = source.standard_normal((geometry.env_num, 4))
                found = model.forward_initial_inference(
                    seen, latents[-1] if latents else None, taken if latents else None, timesteps=time_step
                )
                actions += [taken] if latents else []
                latents.append(found.latents)
                count = (found.sizes[0] + 1) // 2 + 1  # observations in the context, and this one
                between = np.array(actions[len(actions) - (count - 1) :]).T.reshape(geometry.env_num, count - 1)
                wanted = model.forward_without_cache(
                    np.concatenate(latents[-count:], axis=1), between, len(latents) - count
                )
                values.append(found.values)
                off[count < len(latents)].append(float(np.abs(found.values - wanted.values).max()))
            print(
                f"{name}, {positions}: until the first slide {max(off[False]):.2g}; after it {max(off[True]):.2g}, "
                f"median {statistics.median(off[True]):.2g}; standard deviation of values {np.std(values):.2g}"
            )


def padding() -> None:
    """The effect of zeros in front of a context of one token on its prediction, with and without a mask."""
    for name in ("cartpole", "pong", "visual-match"):
        for masked in (False, True):
            geometry = replace(GEOMETRIES[name], env_num=2)
            found = []
            for others in (False, True):
                model = WorldModel(WorldModelConfig(geometry, mask_padding=masked))
                latents = None
                for step in range(3):  # environment 1 is two steps ahead
                    rows = [env for env in (0, 1) if (env or step == 2) and (others or not env)]
                    if rows:
                        seen = np.stack([np.random.default_rng([env, step]).standard_normal(4) for env in rows])
                        begun = [-1 if step == 0 or not env else 1 for env in rows]
                        before = None if latents is None else np.repeat(latents[-1:], len(rows), 0)
                        inference = model.forward_initial_inference(
                            seen, before, begun, rows, [0 if not env else step for env in rows]
                        )
                        latents = inference.latents
                below = model.forward_recurrent_inference(inference.latents, [0] * len(rows), rows)
                found.append(below.values[0])
            print(f"{name}, {'masked' if masked else 'as legacy'}: a value moves by {abs(found[0] - found[1]):.2g}")
