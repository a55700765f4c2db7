"""Monte Carlo tree search over the world model, many environments in one batch, as in MuZero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from kvcache.geometry import is_whole
from kvcache.world_model.inference import Inference
from kvcache.world_model.inputs import whole_numbers
from kvcache.world_model.model import WorldModel

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

    def __post_init__(self) -> None:
        simulations = self.num_simulations
        if not is_whole(simulations) or simulations < 1:
            raise ValueError(f"num_simulations must be a positive integer, got {simulations!r}")
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


class _Bounds:
    """The least and the largest mean value that any node of one tree ever had: between them values are normalised."""

    def __init__(self) -> None:
        self.least, self.most = math.inf, -math.inf

    def see(self, value: float) -> None:
        self.least, self.most = min(self.least, value), max(self.most, value)

    def normalised(self, values: np.ndarray) -> np.ndarray:
        return (values - self.least) / (self.most - self.least) if self.most > self.least else values


class _Node:
    """A state of one environment's tree, and its children's statistics, action by action."""

    __slots__ = ("children", "key", "latent", "priors", "rewards", "value_sums", "visits")

    def __init__(self, latent: np.ndarray, policy_logits: np.ndarray, key: int | None) -> None:
        self.latent, self.key = latent, key  # [1, E]; the key of its context, where keys are chained
        weights = np.exp(policy_logits - policy_logits.max(), dtype=np.float64)
        self.priors = weights / weights.sum()
        actions = len(policy_logits)
        self.children: list[_Node | None] = [None] * actions
        self.visits = np.zeros(actions, dtype=np.int64)
        self.value_sums = np.zeros(actions)  # of the children's own values
        self.rewards = np.zeros(actions)


def _nodes(found: Inference) -> list[_Node]:
    """The states that an inference predicted, one of each row."""
    keys: Sequence[int | None] = found.keys or [None] * len(found.values)
    return [_Node(*each) for each in zip(found.latents, found.policy_logits, keys, strict=True)]


class _Tree:
    """The search of one environment."""

    def __init__(self, config: SearchConfig, root: _Node, value: float) -> None:
        self.config = config
        self.root = root
        self.bounds = _Bounds()
        self.value_sum, self.visits = value, 1
        self.path: list[tuple[_Node, int]] = []

    def select(self) -> tuple[_Node, int]:
        """Follow the best children to one that is not expanded: its parent and the action that leads to it."""
        node, self.path = self.root, []
        while True:
            action = self._best(node)
            self.path.append((node, action))
            child = node.children[action]
            if child is None:
                return node, action
            node = child

    def _best(self, node: _Node) -> int:
        config, total = self.config, int(node.visits.sum())
        weight = math.log((1 + total + config.pb_c_base) / config.pb_c_base) + config.pb_c_init
        explored = weight * node.priors * math.sqrt(total) / (1 + node.visits)
        visited = node.visits > 0
        values = np.zeros(len(explored))
        if visited.any():
            means = node.value_sums[visited] / node.visits[visited]
            values[visited] = self.bounds.normalised(node.rewards[visited] + config.discount * means)
        if not total:  # nothing has been visited: the prior decides
            explored = node.priors
        return int(np.argmax(values + explored))

    def expand(self, child: _Node, reward: float, value: float) -> None:
        """Put ``child`` where the last selection ended, and count what it is worth all the way up."""
        parent, action = self.path[-1]
        parent.children[action] = child
        parent.rewards[action] = reward
        for node, action in reversed(self.path):
            node.visits[action] += 1
            node.value_sums[action] += value
            self.bounds.see(float(node.value_sums[action] / node.visits[action]))
            value = float(node.rewards[action]) + self.config.discount * value
        self.value_sum += value
        self.visits += 1
        self.bounds.see(self.value)

    @property
    def value(self) -> float:
        """The root's: the mean of what the model said of it and of what was counted since."""
        return self.value_sum / self.visits


class Search:
    """Batched search: one recurrent inference of all environments for each simulation.

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
        trees = [_Tree(config, root, float(value)) for root, value in zip(_nodes(roots), roots.values, strict=True)]
        for tree, generator in zip(trees, generators, strict=True):
            noise = generator.dirichlet([config.dirichlet_alpha] * len(tree.root.priors))
            tree.root.priors = (1 - config.noise_fraction) * tree.root.priors + config.noise_fraction * noise
        depths: list[list[int]] = []
        for simulation in range(config.num_simulations):
            parents, actions = zip(*(tree.select() for tree in trees), strict=True)
            depths.append([len(tree.path) for tree in trees])
            keys = {} if roots.keys is None else {"keys": [parent.key for parent in parents]}
            found = self.model.forward_recurrent_inference(
                np.stack([parent.latent for parent in parents]),
                actions,
                envs,
                simulation,
                starts + np.array(depths[-1]) - 1,
                reanalyzes,
                **keys,
            )
            for row, (tree, child) in enumerate(zip(trees, _nodes(found), strict=True)):
                tree.expand(child, float(found.rewards[row]), float(found.values[row]))
        visits = np.stack([tree.root.visits for tree in trees])
        return SearchResult(
            visits,
            np.array([tree.value for tree in trees]),
            np.array([self._chosen(each, generator) for each, generator in zip(visits, generators, strict=True)]),
            np.array(depths),
        )

    def _chosen(self, visits: np.ndarray, generator: np.random.Generator) -> int:
        if self.config.temperature == 0:
            return int(np.argmax(visits))
        weights = (visits / visits.max()) ** (1 / self.config.temperature)
        return int(generator.choice(len(visits), p=weights / weights.sum()))
