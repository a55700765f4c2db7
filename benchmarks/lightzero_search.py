"""Searches a second inside LightZero, its own cache against the new one: ``python benchmarks/lightzero_search.py``.

LightZero's policy collects, with its own tree and its own configurations. All policies have the same weights and get
the same observations, actions and random numbers. They take turns, search by search, in one process. Observations are
random, and weights are LightZero's first ones, but for layers that begin at zero: with those all latents were the same.
Contexts grow by a step of an environment with each search; searches before they are full are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import io
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kvbench.measure.machine import Machine
from kvbench.record.lightzero_config import UniZeroConfig, load_config
from kvbench.record.lightzero_pinning import pin
from kvbench.training.backends import LEGACY, TRAINED, cache_settings
from kvbench.training.own_cache import own_cache_bytes
from kvbench.training.watch import Watch
from kvcache import TOKENS_PER_STEP
from kvcache.integrations import lightzero

WORLD_MODEL_CFG = "policy.model.world_model_cfg"
BACKENDS = (LEGACY, "new:paged", "new:paged-resident", "new:slab")
SEED, SPREAD = 0, 0.1  # of the weights that LightZero starts at zero


def long_context(tokens: int) -> dict[str, int]:
    """Settings for contexts of so many tokens."""
    sizes = {"context_length": tokens, "max_tokens": tokens, "max_blocks": tokens // TOKENS_PER_STEP}
    return {f"{WORLD_MODEL_CFG}.{name}": size for name, size in sizes.items()}


CASES: dict[str, tuple[str, dict[str, int]]] = {
    "cartpole": ("cartpole", {}),
    "lunarlander": ("lunarlander", {}),
    "pong": ("pong", {}),
    "cartpole, T = 64": ("cartpole", long_context(64)),
    "lunarlander, T = 64": ("lunarlander", long_context(64)),
}


@dataclass
class Turn:
    """One search: seconds of it, and in it of the cache; tokens of the contexts that its last simulation found."""

    search: float
    cache: float
    tokens: float


class Searcher:
    """A policy with one backend, and its searches.

    Args:
        config: of the policy.
        backend: its name.
        watch: of the policy's class.
    """

    def __init__(self, config: UniZeroConfig, backend: str, watch: Watch) -> None:
        settings = {f"{WORLD_MODEL_CFG}.{name}": value for name, value in cache_settings(backend).items()}
        main, create = config.changed(settings).fresh()
        compiled = importlib.import_module("ding.config").compile_config(
            main, seed=SEED, env=None, auto=True, create_cfg=create, save_cfg=False
        )
        self.policy = importlib.import_module("ding.policy").create_policy(
            compiled.policy, enable_field=["learn", "collect"]
        )
        self.model = self.policy._collect_model
        self.backend, self.watch = backend, watch
        self.turns: list[Turn] = []
        self.keys: set[int] = set()
        self.latents = 0

    @property
    def world_model(self) -> Any:
        return self.model.world_model

    def search(self, observations: torch.Tensor, step: int) -> None:
        """One search of all environments, at this step of their episodes."""
        envs, actions = len(observations), self.policy._cfg.model.action_space_size
        before = dict(self.watch.seconds)
        self.watch.keys, self.watch.latents = self.keys, self.latents
        self.policy._forward_collect(
            observations, np.ones((envs, actions)), 1.0, [-1] * envs, 0.0, np.arange(envs), np.full(envs, step)
        )
        self.latents = self.watch.latents
        taken = {name: seconds - before[name] for name, seconds in self.watch.seconds.items()}
        tokens = float(np.mean(self.world_model.keys_values_wm_size_list))
        self.turns.append(Turn(taken["search"], taken["inference"] - taken["forward"], tokens))

    @property
    def cache_bytes(self) -> int:
        """That the cache has reserved by now; no cache gives any back."""
        backend = lightzero.backend_of(self.model)
        return own_cache_bytes(self.world_model) if backend is None else sum(backend.bytes_reserved.values())


def make_searchers(config: UniZeroConfig, backends: list[str], watch: Watch) -> list[Searcher]:
    """Policies of the same weights."""
    searchers = [Searcher(config, backend, watch) for backend in backends]
    torch.manual_seed(SEED)
    with torch.no_grad():
        for parameter in searchers[0].model.parameters():
            if not parameter.any():
                parameter.normal_(std=SPREAD)
    weights = searchers[0].model.state_dict()
    for each in searchers:
        each.model.load_state_dict(weights)
        if not each.world_model.config.rotary_emb:
            each.world_model.precompute_pos_emb_diff_kv()
    return searchers


def take_turns(searchers: list[Searcher], searches: int) -> int:
    """Search until windows have slid, and ``searches`` times more; how many searches those before were."""
    policy, first = searchers[0].policy, searchers[0]
    shape, envs = policy._cfg.model.observation_shape, policy.collector_env_num
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    random = np.random.default_rng(SEED)
    filling = first.world_model.context_length // TOKENS_PER_STEP + 1
    gc.collect()
    gc.disable()
    for step in range(filling + searches):
        observations = torch.from_numpy(random.random((envs, *shape), dtype=np.float32))
        for each in searchers if step % 2 == 0 else reversed(searchers):
            np.random.seed(step)
            torch.manual_seed(step)
            ctypes.CDLL(None).srand(step)
            each.search(observations, step)
        for each in searchers:  # where roundings decided otherwise, all go on with the first one's actions
            each.policy.last_batch_action = first.policy.last_batch_action
    gc.enable()
    return filling


def quartiles(values: Any, form: str = "{:.2f}") -> str:
    low, middle, high = (form.format(each) for each in np.percentile(values, (25, 50, 75)))
    return f"{middle} ({low} to {high})"


def report(name: str, searchers: list[Searcher], filling: int) -> None:
    """Print one configuration's table."""
    first = searchers[0]
    model, turns = first.world_model, first.turns[filling:]
    print(
        f"\n{name}: T {model.context_length}, {model.config.num_layers} layers, embedding {model.config.embed_dim}, "
        f"{first.policy.collector_env_num} environments, {first.policy._cfg.num_simulations} simulations; "
        f"{len(turns)} searches after {filling}"
    )
    distinct = 100 * len(first.keys) / first.latents
    tokens = np.mean([turn.tokens for turn in turns])
    print(f"contexts of {tokens:.1f} tokens on average; {distinct:.0f} % of latents have keys of their own")
    print("| backend | searches/s | cache, % of a search | cache, ms | search faster | cache faster | cache, MB |")
    print("|---|---|---|---|---|---|---|")
    for each in searchers:
        turns = each.turns[filling:]
        pairs = list(zip(first.turns[filling:], turns, strict=True))
        print(
            f"| {each.backend} | {1 / np.median([turn.search for turn in turns]):.2f} "
            f"| {100 * np.median([turn.cache / turn.search for turn in turns]):.1f} "
            f"| {1e3 * np.median([turn.cache for turn in turns]):.1f} "
            f"| {quartiles([theirs.search / ours.search for theirs, ours in pairs])} "
            f"| {quartiles([theirs.cache / ours.cache for theirs, ours in pairs])} "
            f"| {each.cache_bytes / 1e6:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--backend", action="append", choices=TRAINED, help="the first is the one compared with")
    parser.add_argument("--searches", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pin(SEED)
    lightzero.install()
    logging.disable()
    print(Machine.describe())
    policy = importlib.import_module("lzero.policy.unizero").UniZeroPolicy
    collector = importlib.import_module("lzero.worker").MuZeroCollector
    watch = Watch(policy, collector, lambda kind, values: None)
    for name in given.case or CASES:
        source, changes = CASES[name]
        with contextlib.redirect_stdout(io.StringIO()):
            config = load_config(source).changed(changes)
            searchers = make_searchers(config, given.backend or list(BACKENDS), watch)
            filling = take_turns(searchers, given.searches)
        report(name, searchers, filling)


if __name__ == "__main__":
    main()
