"""Searches without a model: trees built by the PUCT rule over seeded numbers, for sizes no recorded trace covers.

Deterministic on any machine: every number is made from the seed by integer arithmetic; the one logarithm and the root
noise are rounded, so that a last bit that differs between maths libraries decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kvbench.replay.content import mix
from kvbench.trace.schema import ROOT_SIMULATION, TraceHeader
from kvbench.trace.writer import TraceWriter
from kvcache import TOKENS_PER_STEP, Geometry

__all__ = ["SyntheticSearch", "write_synthetic_trace"]

# MuZero's constants (Schrittwieser et al. 2020, appendix B), as LightZero 0.2.0 sets them too.
PB_C_BASE = 19652
PB_C_INIT = 1.25
DISCOUNT = 0.997
ROOT_DIRICHLET_ALPHA = 0.3
ROOT_NOISE_WEIGHT = 0.25
_DIGITS = 9
_UNIT = float(1 << 53)


@dataclass(slots=True)
class _Node:
    """A node of a search tree; its children are in the order of the actions."""

    key: int
    store: int  # row number of its store event
    size: int  # live tokens of its stored context
    depth: int
    value: float
    reward: float
    priors: list[float]
    children: dict[int, _Node] = field(default_factory=dict)
    visits: int = 0
    total: float = 0.0


@dataclass(slots=True)
class _Environment:
    """The position of one environment in its episode; ``root`` is None before its first step."""

    root: _Node | None = None
    steps_left: int = 0


class SyntheticSearch:
    """Episodes and searches of ``geometry.env_num`` environments, event by event.

    Args:
        geometry: of the model that is not there.
        searches: how many.
        seed: of everything.
        num_actions: branching of the trees.
        episode_length: mean steps of an episode; environments finish at different times.
        transpositions: share of new nodes whose latent equals one met before in the same search: the same key, with
            another history.
    """

    def __init__(
        self,
        geometry: Geometry,
        searches: int,
        seed: int,
        *,
        num_actions: int = 4,
        episode_length: int = 40,
        transpositions: float = 0.0,
    ) -> None:
        for name, value in (("searches", searches), ("num_actions", num_actions), ("episode_length", episode_length)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        if not 0.0 <= transpositions <= 1.0:
            raise ValueError(f"transpositions is a share between 0 and 1, got {transpositions}")
        if not geometry.keeps_past:
            raise ValueError(f"context_length {geometry.context_length} stores nothing: there is no trace to make")
        self.geometry = geometry
        self.searches = searches
        self.seed = seed
        self.num_actions = num_actions
        self.episode_length = episode_length
        self.transpositions = transpositions
        self._environments = [_Environment() for _ in range(geometry.env_num)]
        self._batch = 0

    @property
    def source(self) -> dict[str, Any]:
        """The source in the trace's header, with which it can be made again."""
        return {
            "library": "kvcache",
            "generator": "kvbench.record.synthetic",
            "environment": "none",
            "seed": self.seed,
            "trained": False,
            "searches": self.searches,
            "num_actions": self.num_actions,
            "episode_length": self.episode_length,
            "transpositions": self.transpositions,
        }

    def write(self, writer: TraceWriter) -> Iterator[int]:
        """Write all events, yielding the number of searches done after each."""
        for search in range(self.searches):
            self._begin_search(writer, search)
            seen = [[environment.root.key] for environment in self._environments if environment.root]
            for simulation in range(self.geometry.num_simulations):
                self._simulate(writer, search, simulation, seen)
            yield search + 1

    def _begin_search(self, writer: TraceWriter, search: int) -> None:
        """Root inferences: one batch for the environments that begin an episode, one for those that go on."""
        begun, going = [], []
        for env, environment in enumerate(self._environments):
            if environment.steps_left == 0:
                environment.root = None
                # Between half and one and a half times the mean: environments drift apart.
                environment.steps_left = max(
                    1, self.episode_length // 2 + self._draw(search, env, 1) % (self.episode_length + 1)
                )
                begun.append(env)
            else:
                going.append(env)
            environment.steps_left -= 1
        for envs in (begun, going):
            if envs:
                self._root_batch(writer, search, envs)
        writer.add("clear", "recur", -1, self._batch - 1, search, ROOT_SIMULATION)

    def _root_batch(self, writer: TraceWriter, search: int, envs: list[int]) -> None:
        place = (self._batch, search, ROOT_SIMULATION)
        old = {env: self._environments[env].root for env in envs}
        first_step = all(root is None for root in old.values())
        for env, root in old.items():
            if root is not None:
                writer.add("lookup", "root", env, *place, key=root.key, node=root.store, depth=0)
        for env, root in old.items():
            writer.add("assemble", "root", env, *place, size=0 if root is None else root.size)
        tokens = 1 if first_step else TOKENS_PER_STEP
        for env, root in old.items():
            key = mix(self.seed, search, env, 0)
            parent, size = (None, 0) if root is None else (root.key, root.size)
            row = writer.add("store", "init", env, *place, key=key, parent=parent, tokens=tokens, depth=0)
            _, size = self.geometry.window(size + tokens)
            value = 0.0 if root is None else root.value
            self._environments[env].root = _Node(
                key, row, size, 0, self._value(value, search, env, 0), 0.0, self._priors(search, env, 0, noise=True)
            )
        self._batch += 1

    def _simulate(self, writer: TraceWriter, search: int, simulation: int, seen: list[list[int]]) -> None:
        place = (self._batch, search, simulation)
        paths = []
        for env, environment in enumerate(self._environments):
            assert environment.root is not None
            path, action = _descend(environment.root, self.num_actions)
            paths.append((env, path, action))
        for env, path, _ in paths:
            parent = path[-1]
            writer.add("lookup", "node", env, *place, key=parent.key, node=parent.store, depth=parent.depth + 1)
        for env, path, _ in paths:
            writer.add("assemble", "node", env, *place, size=path[-1].size)
        for env, path, action in paths:
            parent = path[-1]
            key = self._node_key(search, env, simulation, seen[env])
            seen[env].append(key)
            row = writer.add(
                "store", "recur", env, *place,
                key=key, parent=parent.key, tokens=TOKENS_PER_STEP, depth=parent.depth + 1,
            )  # fmt: skip
            _, size = self.geometry.window(parent.size + TOKENS_PER_STEP)
            drawn = (search, env, simulation + 1)
            leaf = _Node(
                key, row, size, parent.depth + 1, self._value(parent.value, *drawn),
                self._uniform(*drawn, 3) * 0.1, self._priors(*drawn, noise=False),
            )  # fmt: skip
            parent.children[action] = leaf
            _backup([*path, leaf])
        self._batch += 1

    def _node_key(self, search: int, env: int, simulation: int, seen: list[int]) -> int:
        # The root's key is left out: a node under it would be found in the init pool.
        if len(seen) > 1 and self._uniform(search, env, simulation, 4) < self.transpositions:
            return seen[1 + self._draw(search, env, simulation, 5) % (len(seen) - 1)]
        return mix(self.seed, search, env, simulation + 1)

    def _draw(self, *place: int) -> int:
        """A 64-bit number that belongs to a place in the trace; no stream, so that no order matters."""
        return mix(self.seed, 0xD1CE, *place)

    def _uniform(self, *place: int) -> float:
        """In [0, 1)."""
        return (self._draw(*place) >> 11) / _UNIT

    def _value(self, parent: float, *place: int) -> float:
        """A value near the parent's, so that good lines stay good and trees get deep."""
        return min(1.0, max(-1.0, parent + (self._uniform(*place, 1) - 0.5) * 0.4))

    def _priors(self, *place: int, noise: bool) -> list[float]:
        weights = [1.0 + 15.0 * self._uniform(*place, 2, action) ** 3 for action in range(self.num_actions)]
        total = sum(weights)
        priors = [weight / total for weight in weights]
        if noise:
            generator = np.random.Generator(np.random.PCG64(self._draw(*place, 6)))
            drawn = generator.dirichlet([ROOT_DIRICHLET_ALPHA] * self.num_actions)
            priors = [
                (1 - ROOT_NOISE_WEIGHT) * prior + ROOT_NOISE_WEIGHT * round(float(each), _DIGITS)
                for prior, each in zip(priors, drawn, strict=True)
            ]
        return priors


def _descend(root: _Node, num_actions: int) -> tuple[list[_Node], int]:
    """From the root by PUCT to an edge that has no node yet: the path to its parent, and the action."""
    lowest, highest = _value_range(root)
    path = [root]
    while True:
        node = path[-1]
        action = max(range(num_actions), key=lambda each: (_puct(node, each, lowest, highest), -each))
        if action not in node.children:
            return path, action
        path.append(node.children[action])


def _puct(node: _Node, action: int, lowest: float, highest: float) -> float:
    """MuZero's score of an edge, values normalised by the range seen in the tree."""
    child = node.children.get(action)
    visits = child.visits if child else 0
    growth = round(math.log((node.visits + PB_C_BASE + 1) / PB_C_BASE), _DIGITS) + PB_C_INIT
    score = growth * node.priors[action] * math.sqrt(node.visits + 1) / (1 + visits)
    if child and visits:
        value = child.reward + DISCOUNT * child.total / visits
        score += (value - lowest) / (highest - lowest) if highest > lowest else value
    return score


def _value_range(root: _Node) -> tuple[float, float]:
    lowest, highest = math.inf, -math.inf
    stack = list(root.children.values())
    while stack:
        node = stack.pop()
        value = node.reward + DISCOUNT * node.total / node.visits
        lowest, highest = min(lowest, value), max(highest, value)
        stack.extend(node.children.values())
    return lowest, highest


def _backup(path: list[_Node]) -> None:
    value = path[-1].value
    for node in reversed(path):
        node.visits += 1
        node.total += value
        value = node.reward + DISCOUNT * value


def write_synthetic_trace(path: str | Path, search: SyntheticSearch) -> Iterator[int]:
    """Write the trace file, yielding the number of searches done after each; whole or absent.

    Raises:
        FileExistsError: the file exists.
    """
    header = TraceHeader.create(search.geometry, search.source, synthetic=True)
    with TraceWriter(path, header) as writer:
        yield from search.write(writer)
