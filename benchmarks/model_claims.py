"""What searches and predictions of the world model come to, by the cache that they use; printed by ``claims.py``."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np

from kvcache.geometry import GEOMETRIES, POSITIONS, Geometry
from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig
from kvcache.world_model.play import Played, play

__all__ = ["padding", "same_search", "uncached"]

SEARCHED = (("private", False), ("slab", False), ("paged", False), ("paged", True))


def same_search() -> None:
    """50 searches of 8 environments on every cache, by geometry and kind of positions: are they the same?"""
    for name, geometry in GEOMETRIES.items():
        for positions in POSITIONS:
            # Deep enough for windows to slide within a search, where contexts are short.
            shape = replace(geometry, positions=positions, num_simulations=8)
            wanted = _searched(shape)
            for storage, resident in SEARCHED:
                found = _searched(shape, storage, resident)
                pairs = list(zip(wanted, found, strict=True))
                same = sum(
                    np.array_equal(a.result.actions, b.result.actions)
                    and np.array_equal(a.result.visit_counts, b.result.visit_counts)
                    for a, b in pairs
                )
                off = max(float(np.abs(a.result.values - b.result.values).max()) for a, b in pairs)
                print(
                    f"{name}, {positions}, new:{storage}{'-resident' * resident}: same actions and visits in {same} of "
                    f"{len(pairs)} searches, values {off:.2g} apart at most",
                    flush=True,
                )


def _searched(geometry: Geometry, storage: str | None = None, resident: bool = False) -> list[Played]:
    """50 searches with the new cache of that storage, or with legacy."""
    settings = WorldModelConfig(geometry, use_new_cache_manager=storage is not None, cache_resident_batch=resident)
    if storage is not None:
        settings = replace(settings, cache_storage=storage)
    return list(play(WorldModel(settings), 50, 0, SearchConfig(geometry.num_simulations)))


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
    """What zeros in front of a context of one token change in its prediction, with and without a mask."""
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
