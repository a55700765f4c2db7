"""Searches without a model: trees built by the PUCT rule over seeded numbers, for sizes no recorded trace covers.

Deterministic on any machine: every number is made from the seed by integer arithmetic; the one logarithm and the root
noise are rounded, so that a last bit that differs between maths libraries decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from kvbench.files import files_whole_or_absent
from kvbench.replay.content import mix
from kvbench.trace.schema import ASSEMBLE, CLEAR, LOOKUP, NO_ENV, ROOT_SIMULATION, STORE, TraceHeader
from kvbench.trace.writer import TraceWriter, check_new
from kvcache import TOKENS_PER_STEP, Geometry

__all__ = ["Node", "SyntheticSearch", "write_synthetic_trace"]

# MuZero's constants (Schrittwieser et al. 2020, appendix B), as LightZero 0.2.0 sets them too.
PB_C_BASE = 19652
PB_C_INIT = 1.25
DISCOUNT = 0.997
ROOT_DIRICHLET_ALPHA = 0.3
ROOT_NOISE_WEIGHT = 0.25
_DIGITS = 9
_UNIT = float(1 << 53)


@dataclass(slots=True)
class Node:
    """A node of a search tree; its children are in the order of the actions."""

    key: int
    store: int  # row number of its store event
    size: int  # live tokens of its stored context
    depth: int
    value: float
    reward: float
    priors: list[float]
    children: dict[int, Node] = field(default_factory=dict)
    visits: int = 0
    total: float = 0.0

    @property
    def went_on(self) -> int:
        """Simulations that went on to a child."""
        return sum(child.visits for child in self.children.values())


@dataclass(slots=True)
class _Environment:
    """The position of one environment in its episode, and the keys below the root of its present search."""

    root: Node | None = None  # None before the first step
    steps_left: int = 0
    keys: list[int] = field(default_factory=list)


@dataclass
class SyntheticSearch:
    """Episodes and searches of ``geometry.env_num`` environments, event by event."""

    geometry: Geometry  # of the model that is not there
    searches: int
    seed: int  # of everything
    _: KW_ONLY
    num_actions: int = 4  # branching of the trees
    episode_length: int = 40  # mean steps of an episode; environments finish at different times
    # Share of new nodes whose latent equals one met before in the same search: the same key, with another history.
    transpositions: float = 0.0
    clear_ended: bool = False  # whether an environment's init cache is cleared when its episode ends

    def __post_init__(self) -> None:
        for name in ("searches", "num_actions", "episode_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not 0.0 <= self.transpositions <= 1.0:
            raise ValueError(f"transpositions is a share between 0 and 1, got {self.transpositions}")
        if not self.geometry.keeps_past:
            raise ValueError(f"context_length {self.geometry.context_length} stores nothing: there is no trace to make")
        self._environments = [_Environment() for _ in range(self.geometry.env_num)]
        self._batch = 0
        self._step = 0  # of the environments: numbers are drawn by it

    @property
    def source(self) -> dict[str, Any]:
        """The source in the trace's header, with which it can be made again."""
        made_by = {"library": "kvcache", "generator": "kvbench.record.synthetic", "environment": "none"}
        settings = ["seed", "searches", "num_actions", "episode_length", "transpositions"]
        settings += ["clear_ended"] * self.clear_ended  # traces without it are older than it
        return {**made_by, "trained": False, **{name: getattr(self, name) for name in settings}}

    def write(self, writer: TraceWriter) -> Iterator[int]:
        """Write all events, yielding the number of searches done after each."""
        for search in range(self.searches):
            self._step = search
            self._begin_search(writer, search)
            self._simulate_all(writer, search)
            if self.clear_ended:
                self._clear_ended(writer, search)
            yield search + 1

    def _clear_ended(self, writer: TraceWriter, search: int) -> None:
        for env, environment in enumerate(self._environments):
            if environment.steps_left == 0:
                writer.add(CLEAR, "init", env, self._batch - 1, search, self.geometry.num_simulations - 1)

    def _begin_search(self, writer: TraceWriter, search: int) -> None:
        """Root inferences: one batch for the environments that begin an episode, one for those that go on."""
        begun: dict[int, Node | None] = {}
        going: dict[int, Node | None] = {}
        for env, environment in enumerate(self._environments):
            environment.keys = []
            if environment.steps_left == 0:
                # Between half and one and a half times the mean: environments drift apart.
                drawn = self._draw(search, env, 1) % (self.episode_length + 1)
                environment.steps_left = max(1, self.episode_length // 2 + drawn)
                begun[env] = None
            else:
                going[env] = environment.root
            environment.steps_left -= 1
        for parents in filter(None, (begun, going)):
            for env, root in self._infer(writer, search, ROOT_SIMULATION, parents).items():
                self._environments[env].root = root
        writer.add(CLEAR, "recur", NO_ENV, self._batch - 1, search, ROOT_SIMULATION)

    def _simulate_all(self, writer: TraceWriter, search: int) -> None:
        for simulation in range(self.geometry.num_simulations):
            self._simulate(writer, search, simulation)

    def _simulate(self, writer: TraceWriter, search: int, simulation: int) -> None:
        paths, actions = {}, {}
        for env, environment in enumerate(self._environments):
            assert environment.root is not None
            paths[env], actions[env] = _descend(environment.root, self.num_actions)
        parents = {env: path[-1] for env, path in paths.items()}
        for env, leaf in self._infer(writer, search, simulation, parents, actions).items():
            self._environments[env].keys.append(leaf.key)
            parents[env].children[actions[env]] = leaf
            _backup([*paths[env], leaf])

    def _infer(
        self,
        writer: TraceWriter,
        search: int,
        simulation: int,
        parents: Mapping[int, Node | None],
        actions: Mapping[int, int] = MappingProxyType({}),
    ) -> dict[int, Node]:
        """Write one inference and make its nodes, by environment; without parents they start from nothing.

        Below the root ``actions`` lead to them.
        """
        place = (self._batch, search, simulation)
        at_root = simulation == ROOT_SIMULATION
        scope, pool = ("root", "init") if at_root else ("node", "recur")
        depths = {env: 0 if at_root or parent is None else parent.depth + 1 for env, parent in parents.items()}
        for env, parent in parents.items():
            if parent is not None:
                writer.add(LOOKUP, scope, env, *place, key=parent.key, node=parent.store, depth=depths[env])
        for env, parent in parents.items():
            writer.add(ASSEMBLE, scope, env, *place, size=0 if parent is None else parent.size)
        nodes = {}
        for env, parent in parents.items():
            above, size, value = (None, 0, 0.0) if parent is None else (parent.key, parent.size, parent.value)
            tokens = 1 if parent is None else TOKENS_PER_STEP
            key = self._new_key(env, simulation)
            known: dict[str, Any] = {"parent": above, "tokens": tokens, "depth": depths[env]}
            if parent is not None and not at_root:
                known |= {"visits": parent.went_on, "prior": parent.priors[actions[env]]}
            row = writer.add(STORE, pool, env, *place, key=key, **known)
            _, size = self.geometry.window(size + tokens)
            drawn = (self._step, env, simulation + 1)
            reward = 0.0 if at_root else self._uniform(*drawn, 3) * 0.1
            priors = self._priors(*drawn, noise=at_root)
            nodes[env] = Node(key, row, size, depths[env], self._value(value, *drawn), reward, priors)
        self._batch += 1
        return nodes

    def _new_key(self, env: int, simulation: int) -> int:
        # Never again the root's: a node under it would be found in the init pool.
        keys = self._environments[env].keys
        if keys and self._uniform(self._step, env, simulation, 4) < self.transpositions:
            return keys[self._draw(self._step, env, simulation, 5) % len(keys)]
        return mix(self.seed, self._step, env, simulation + 1)

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


def _descend(root: Node, num_actions: int) -> tuple[list[Node], int]:
    """From the root by PUCT to an edge that has no node yet: the path to its parent, and the action."""
    lowest, highest = _value_range(root)
    path = [root]
    while True:
        node = path[-1]
        action = max(range(num_actions), key=lambda each: (_puct(node, each, lowest, highest), -each))
        if action not in node.children:
            return path, action
        path.append(node.children[action])


def _puct(node: Node, action: int, lowest: float, highest: float) -> float:
    """MuZero's score of an edge, values normalised by the range seen in the tree."""
    child = node.children.get(action)
    visits = child.visits if child else 0
    growth = round(math.log((node.visits + PB_C_BASE + 1) / PB_C_BASE), _DIGITS) + PB_C_INIT
    score = growth * node.priors[action] * math.sqrt(node.visits + 1) / (1 + visits)
    if child and visits:
        value = child.reward + DISCOUNT * child.total / visits
        score += (value - lowest) / (highest - lowest) if highest > lowest else value
    return score


def _value_range(root: Node) -> tuple[float, float]:
    lowest, highest = math.inf, -math.inf
    stack = list(root.children.values())
    while stack:
        node = stack.pop()
        value = node.reward + DISCOUNT * node.total / node.visits
        lowest, highest = min(lowest, value), max(highest, value)
        stack.extend(node.children.values())
    return lowest, highest


def _backup(path: list[Node]) -> None:
    value = path[-1].value
    for node in reversed(path):
        node.visits += 1
        node.total += value
        value = node.reward + DISCOUNT * value


def write_synthetic_trace(path: str | Path, search: SyntheticSearch) -> Iterator[int]:
    """Write the trace file, yielding the number of searches done after each; whole or absent.

    Raises:
        FileExistsError: the file exists.
        OSError: it cannot be written.
    """
    actions = search.num_actions
    header, path = TraceHeader.create(search.geometry, search.source, synthetic=True, actions=actions), Path(path)
    check_new(path)
    with files_whole_or_absent(path.parent) as folder:  # a trace that can be made again needs no journal
        with TraceWriter(folder / path.name, header) as writer:
            yield from search.write(writer)
        check_new(path)
