"""Monte Carlo tree search over the world model, many environments in one batch, as in MuZero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from kvcache.geometry import is_whole
from kvcache.world_model.inference import Inference
from kvcache.world_model.inputs import whole_numbers
from kvcache.world_model.model import WorldModel
from kvcache.world_model.tree import Trees

__all__ = ["Search", "SearchConfig", "SearchResult"]


@dataclass(frozen=True)
class SearchConfig:
    """Constants of the search (Schrittwieser et al. 2020, "MuZero", appendix B and D, and the pseudocode beside it).

    Attributes:
        num_simulations: of one search.
        discount: of a reward one step later.
        pb_c_base: how fast the weight of the prior grows with visits.
        pb_c_init: the weight of the prior.
        dirichlet_alpha: of the noise at the root.
        noise_fraction: share of the noise in the root's prior.
        temperature: of the choice among visit counts; 0 takes the most visited.
        leaves: of each environment, that one forward pass infers: a simulation each. Those after the first are chosen
            before the values of the others are known ("virtual loss": the others count as visits of the lowest value),
            so a search of more leaves is faster and another one. Two of them may be the same state. Where they do not
            divide the simulations, the last forward pass has fewer.

    Raises:
        ValueError: a constant is out of range, named.
    """

    num_simulations: int = 50
    discount: float = 0.997
    pb_c_base: float = 19652.0
    pb_c_init: float = 1.25
    dirichlet_alpha: float = 0.3
    noise_fraction: float = 0.25
    temperature: float = 1.0
    leaves: int = 1

    def __post_init__(self) -> None:
        for name in ("num_simulations", "leaves"):
            whole = getattr(self, name)
            if not is_whole(whole) or whole < 1:
                raise ValueError(f"{name} must be a positive integer, got {whole!r}")
        for name, low, high in (
            ("discount", 0, 1),
            ("pb_c_base", 1, math.inf),
            ("pb_c_init", 0, math.inf),
            ("noise_fraction", 0, 1),
            ("temperature", 0, math.inf),
            ("dirichlet_alpha", 0, math.inf),
        ):
            value = getattr(self, name)
            is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or not low <= value <= high:
                wanted = f"at least {low} and finite" if high == math.inf else f"from {low} to {high}"
                raise ValueError(f"{name} must be a number {wanted}, got {value!r}")
        if self.dirichlet_alpha == 0:
            raise ValueError("dirichlet_alpha must be positive, got 0")


@dataclass(frozen=True)
class SearchResult:
    """The decisions of a search.

    Attributes:
        visit_counts: ``[B, A]``, of the root's children.
        values: ``[B]``, of the roots: means of their own predictions and of one value for each simulation.
        actions: ``[B]``, chosen among the children by visits and temperature.
        depths: ``[simulations, B]``, of the leaf that each simulation expanded; the root's children are at 1.
    """

    visit_counts: np.ndarray
    values: np.ndarray
    actions: np.ndarray
    depths: np.ndarray


class Search:
    """Batched search: one recurrent inference of all environments for each simulation, or for each few of them.

    With several leaves the rows of an inference are the first leaf of all environments, then the second, and so on.

    Args:
        model: whose cache is used.
        config: constants.
    """

    def __init__(self, model: WorldModel, config: SearchConfig | None = None) -> None:
        self.model = model
        self.config = config or SearchConfig(num_simulations=model.geometry.num_simulations)

    def run(
        self,
        roots: Inference,
        generators: Sequence[np.random.Generator],
        envs: Sequence[int] | None = None,
        timesteps: Sequence[int] | int = 0,
        reanalyzes: bool = False,
    ) -> SearchResult:
        """Search from roots.

        Args:
            roots: what ``WorldModel.forward_initial_inference`` said of them.
            generators: one for each root, for its noise and its choice: a row's randomness is its own.
            envs: ``[B]``: None is environments 0, 1, ...
            timesteps: of the roots, ``[B]`` or one for all.
            reanalyzes: as in ``WorldModel.forward_initial_inference``.

        Raises:
            ValueError: an argument is not one for each root, or out of range.
        """
        config, count = self.config, len(roots.values)
        if len(generators) != count:
            raise ValueError(f"there are {count} roots and {len(generators)} generators: each root has its own")
        starts = whole_numbers("timesteps", timesteps, [count], one_for_all=True)
        noise = [each.dirichlet([config.dirichlet_alpha] * roots.policy_logits.shape[1]) for each in generators]
        trees = Trees(config, roots, np.array(noise))
        wants_info = getattr(self.model, "wants_info", False)  # a model without a cache has none
        depths = []
        for first in range(0, config.num_simulations, config.leaves):
            leaves = trees.select(min(config.leaves, config.num_simulations - first))
            depths.append(leaves.depths)
            above = (starts + leaves.depths - 1).ravel()
            known: dict[str, Any] = {} if leaves.keys is None else {"keys": leaves.keys}
            if wants_info:
                known["info"] = trees.info
            found = self.model.forward_recurrent_inference(
                leaves.latents, leaves.actions, leaves.repeat(envs), first, above, reanalyzes, **known
            )
            trees.expand(found)
        visits = trees.visits
        actions = [self._chosen(each, generator) for each, generator in zip(visits, generators, strict=True)]
        return SearchResult(visits, trees.values, np.array(actions), np.concatenate(depths))

    def _chosen(self, visits: np.ndarray, generator: np.random.Generator) -> int:
        if self.config.temperature == 0:
            return int(np.argmax(visits))
        weights = (visits / visits.max()) ** (1 / self.config.temperature)
        return int(generator.choice(len(visits), p=weights / weights.sum()))
