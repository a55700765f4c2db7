"""One training run with one backend, in a process of its own: ``python -m kvbench.training.worker ORDER.json``.

Its numbers go to a file, a line of JSON each; its progress to the standard output.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any, TextIO

import msgspec
import torch
from msgspec import Struct

from kvbench.record.lightzero_config import UniZeroConfig, load_config
from kvbench.record.lightzero_log import quietly
from kvbench.record.lightzero_pinning import pin
from kvbench.training.backends import LEGACY, cache_settings
from kvbench.training.watch import Watch

__all__ = ["NUMBERS", "SUMMARY", "Order", "Summary"]

NUMBERS, SUMMARY, LOG = "numbers.jsonl", "summary.json", "run.log"  # in the order's folder

_WORLD_MODEL_CFG = "policy.model.world_model_cfg"
_TOLD_EVERY = 5.0  # seconds


class Order(Struct, frozen=True, kw_only=True):
    """What to run.

    Attributes:
        config: a name or a file, as for ``load_config``.
        settings: other values of the configuration, by path.
        backend: a name from ``TRAINED``.
        env_steps: after which training ends, with the first collection that reaches it.
        seed: of everything.
        threads: of torch.
        folder: for all files.
    """

    config: str
    settings: dict[str, Any]
    backend: str
    env_steps: int
    seed: int
    threads: int
    folder: str


class Summary(Struct, frozen=True, kw_only=True):
    """What a run took; see ``TrainedBackend``."""

    env_steps: int
    searches: int
    wall_seconds: float
    search_seconds: float
    cache_seconds: float
    peak_bytes: int
    cache_bytes: int
    distinct_keys: float
    lookups: int
    hits: int
    stale_hits: int | None


def run(order: Order, progress: Callable[[dict[str, Any]], None]) -> Summary:
    """Train, and write the numbers to the order's folder, which is the working folder."""
    pin(order.seed)
    torch.set_num_threads(order.threads)
    if order.backend != LEGACY:
        importlib.import_module("kvcache.integrations.lightzero").install()
    caches = {f"{_WORLD_MODEL_CFG}.{name}": value for name, value in cache_settings(order.backend).items()}
    config = load_config(order.config).changed({**order.settings, **caches})
    with open(NUMBERS, "w") as numbers:
        watch = _watch(config, numbers, progress)
        start = time.perf_counter()
        train = getattr(importlib.import_module("lzero.entry"), config.entry)
        train(config.fresh(), seed=order.seed, max_env_step=order.env_steps)
    return _summary(watch, time.perf_counter() - start)


def _watch(config: UniZeroConfig, numbers: TextIO, progress: Callable[[dict[str, Any]], None]) -> Watch:
    counts: dict[str, int] = {}
    told = 0.0

    def note(kind: str, values: dict[str, Any]) -> None:
        nonlocal told
        counts[kind] = counts.get(kind, 0) + 1
        numbers.write(json.dumps({"kind": kind, "env_steps": watch.env_steps, **values}) + "\n")
        if time.monotonic() - told > _TOLD_EVERY:
            told = time.monotonic()
            progress({"env_steps": watch.env_steps, "searches": watch.searches, "learn_steps": counts.get("learn", 0)})

    policy = config.create.policy
    for module in policy.get("import_names", []):
        importlib.import_module(module)
    policies = importlib.import_module("ding.utils").POLICY_REGISTRY
    collector = getattr(importlib.import_module("lzero.worker"), config.collector)
    watch = Watch(policies.get(policy.type), collector, note)
    return watch


def _summary(watch: Watch, wall: float) -> Summary:
    model = watch.policy._collect_model.world_model
    backend = importlib.import_module("kvcache.integrations.lightzero").backend_of(model)
    stale = None if backend is None else backend.stale_hits
    return Summary(
        env_steps=watch.env_steps,
        searches=watch.searches,
        wall_seconds=wall,
        search_seconds=watch.seconds["search"],
        cache_seconds=watch.seconds["inference"] - watch.seconds["forward"],
        peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        cache_bytes=_legacy_bytes(model) if backend is None else sum(backend.bytes_reserved.values()),
        distinct_keys=watch.distinct_keys,
        lookups=model.total_query_count,
        hits=model.hit_count,
        stale_hits=stale,
    )


def _legacy_bytes(model: Any) -> int:
    """Of all contexts that LightZero's own cache holds, and of its batch."""
    pools = (*model.shared_pool_init_infer, model.shared_pool_recur_infer, model.shared_pool_wm, [model.keys_values_wm])
    return sum(
        cache._cache.nbytes
        for pool in pools
        for context in pool
        if context is not None
        for layer in context._keys_values
        for cache in (layer._k_cache, layer._v_cache)
    )


def main() -> None:
    """Run the order in the file that is the first argument."""
    order = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    terminal = sys.stdout

    def progress(counts: dict[str, Any]) -> None:
        print(json.dumps(counts), file=terminal, flush=True)

    with chdir(order.folder), quietly(Path(LOG), lambda line: None):
        summary = run(order, progress)
        Path(SUMMARY).write_bytes(msgspec.json.encode(summary))


if __name__ == "__main__":
    main()
