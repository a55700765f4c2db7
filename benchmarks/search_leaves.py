"""What several leaves a forward pass gain and cost: ``python benchmarks/search_leaves.py``.

From the same roots, with the same noise, a search runs at each number of leaves, in turns. Its visits are compared with
those of one leaf at a time: ``apart`` is half the sum of the differences of the roots' shares of visits (total
variation: 0 the same, 1 nothing in common), and ``the same best`` is how often the most visited action is the same.
``other noise`` is how far apart two searches of one leaf are that differ in the root's noise alone: a scale to read the
others by. Means over searches, environments and seeds. Times are of the processor, with one thread, medians.
"""

from __future__ import annotations

import argparse
from time import process_time

import numpy as np
import torch
from command_line import Help, positive

from kvbench.measure.machine import Machine
from kvcache import GEOMETRIES, Geometry
from kvcache.world_model import Inference, Search, SearchConfig, SearchResult, WorldModel, WorldModelConfig
from kvcache.world_model.model import FIRST_STEP
from kvcache.world_model.play import SyntheticEnv

LEAVES = (1, 2, 4, 8)
OTHER_NOISE = "other noise"


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Total variation ``[B]`` of two distributions of visits ``[B, A]``."""
    shares = [visits / visits.sum(1, keepdims=True) for visits in (one, other)]
    distances: np.ndarray = np.abs(shares[0] - shares[1]).sum(1) / 2
    return distances


class Comparison:
    """Searches from the same roots.

    Attributes:
        seconds: by kind of search: leaves, or ``OTHER_NOISE``.
        distances: likewise, of each environment's visits from those of one leaf.
        same_best: likewise.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        leaves = {each: SearchConfig(geometry.num_simulations, leaves=each) for each in LEAVES}
        self.kinds: dict[int | str, SearchConfig] = {**leaves, OTHER_NOISE: SearchConfig(geometry.num_simulations)}
        self.seconds: dict[int | str, list[float]] = {kind: [] for kind in self.kinds}
        self.distances: dict[int | str, list[float]] = {kind: [] for kind in self.kinds}
        self.same_best: dict[int | str, list[bool]] = {kind: [] for kind in self.kinds}

    def play(self, seed: int, searches: int) -> None:
        """That many steps in stand-ins for environments; they go on with what one leaf at a time chose."""
        model = WorldModel(WorldModelConfig(self.geometry, seed=seed, use_new_cache_manager=True))
        shape, count = model.config.observation_shape, self.geometry.env_num
        envs = [SyntheticEnv(shape, (seed, env), episode_length=10**9) for env in range(count)]
        latents, actions = None, [FIRST_STEP] * count
        for number in range(searches):
            observations = np.stack([env.observation for env in envs])
            roots = model.forward_initial_inference(observations, latents, actions, timesteps=number)
            latents, actions = roots.latents, self.compare(model, roots, seed, number).actions.tolist()
            for env, action in zip(envs, actions, strict=True):
                env.step(action)

    def compare(self, model: WorldModel, roots: Inference, seed: int, number: int) -> SearchResult:
        """Search from these roots in every way; what one leaf at a time found."""
        kinds = list(self.kinds)
        first = number % len(kinds)
        found = {}
        for kind in kinds[first:] + kinds[:first]:
            model.cache.clear_recur_cache()
            noise = [seed, number, int(kind == OTHER_NOISE)]
            generators = [np.random.default_rng([*noise, env]) for env in range(len(roots.values))]
            start = process_time()
            found[kind] = Search(model, self.kinds[kind]).run(roots, generators, timesteps=number)
            self.seconds[kind].append(process_time() - start)
        one = found[1].visit_counts
        for kind, result in found.items():
            self.distances[kind] += apart(one, result.visit_counts).tolist()
            self.same_best[kind] += (one.argmax(1) == result.visit_counts.argmax(1)).tolist()
        return found[1]

    def lines(self) -> list[str]:
        """A row of the table for each kind of search."""
        lines = []
        for kind, seconds in self.seconds.items():
            faster = np.median(np.divide(self.seconds[1], seconds))
            time = "- | -" if kind == OTHER_NOISE else f"{1e3 * np.median(seconds):.0f} | {faster:.2f}"
            same = 100 * np.mean(self.same_best[kind])
            lines.append(
                f"| {self.geometry.name} | {kind} | {time} | {np.mean(self.distances[kind]):.3f} | {same:.0f} % |"
            )
        return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--geometry", action="append", choices=list(GEOMETRIES), help="several times; by default all")
    parser.add_argument("--searches", type=positive, default=4, help="of each seed")
    parser.add_argument("--seeds", type=positive, default=3, help="how many")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{given.seeds} seeds x {given.searches} searches, 1 thread; {Machine.describe().to_dict()}\n")
    print("| geometry | leaves | a search, ms | times faster | apart | the same best |")
    print("|---|---|---|---|---|---|")
    for geometry in given.geometry or GEOMETRIES:
        comparison = Comparison(GEOMETRIES[geometry])
        for seed in range(given.seeds):
            comparison.play(seed, given.searches)
        print("\n".join(comparison.lines()), flush=True)


if __name__ == "__main__":
    main()
