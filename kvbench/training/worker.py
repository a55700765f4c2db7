"""One training run with one backend, in a process of its own: ``python -m kvbench.training.worker ORDER.json``.

Its numbers go to a file, a line of JSON each; its progress to the standard output; all else that is printed to a log.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any, TextIO

import msgspec
import torch

from kvbench.files import whole_or_absent
from kvbench.record.lightzero_config import UniZeroConfig, load_config
from kvbench.record.lightzero_log import quietly
from kvbench.record.lightzero_pinning import pin
from kvbench.results.training import Validation
from kvbench.training.backends import LEGACY, cache_settings
from kvbench.training.order import LOG, NUMBERS, SUMMARY, Order, Summary
from kvbench.training.own_cache import own_cache_bytes
from kvbench.training.watch import Watch

_WORLD_MODEL_CFG = "policy.model.world_model_cfg"
_REPORTED_EVERY = 2.0  # seconds


def run(order: Order, progress: Callable[[dict[str, int]], None]) -> Summary:
    """Train, and write the numbers to the working folder."""
    pin(order.seed)
    torch.set_num_threads(order.threads)
    if order.backend != LEGACY:
        importlib.import_module("kvcache.integrations.lightzero").install()
    settings = cache_settings(order.backend, order.validates)
    caches = {f"{_WORLD_MODEL_CFG}.{name}": value for name, value in settings.items()}
    config = load_config(order.config).changed({**order.settings, **caches})
    ended_with = None
    with open(NUMBERS, "w", buffering=1) as numbers:
        notes = _Notes(numbers, progress)
        watch = _watch(config, notes)
        train = getattr(importlib.import_module("lzero.entry"), config.entry)
        start = time.perf_counter()
        try:
            train(config.fresh(), seed=order.seed, max_env_step=order.env_steps)
        except TypeError as error:
            if order.backend != LEGACY or not _is_recurrent_miss(error):
                raise
            traceback.print_exc()
            ended_with = f"{type(error).__name__} at a recurrent miss ({error})"
        wall = time.perf_counter() - start
    return _summary(watch, notes.env_steps, wall, ended_with)


class _Notes:
    """Takes a run's numbers: writes them, and reports progress now and then."""

    def __init__(self, numbers: TextIO, progress: Callable[[dict[str, int]], None]) -> None:
        self.env_steps = self._learn_steps = 0
        self._numbers, self._progress = numbers, progress
        self._reported = 0.0

    def __call__(self, kind: str, values: dict[str, Any]) -> None:
        self.env_steps += kind == "search"  # of one environment
        self._learn_steps += kind == "learn"
        self._numbers.write(json.dumps({"kind": kind, "env_steps": self.env_steps, **values}) + "\n")
        if time.monotonic() - self._reported > _REPORTED_EVERY:
            self._reported = time.monotonic()
            self._progress({"env_steps": self.env_steps, "learn_steps": self._learn_steps})


def _watch(config: UniZeroConfig, notes: _Notes) -> Watch:
    policy = config.create.policy
    for module in policy.get("import_names", []):
        importlib.import_module(module)
    policies = importlib.import_module("ding.utils").POLICY_REGISTRY
    collector = getattr(importlib.import_module("lzero.worker"), config.collector)
    return Watch(policies.get(policy.type), collector, notes)


def _is_recurrent_miss(error: TypeError) -> bool:
    """Whether LightZero indexed its pool with the None of a key that it did not find."""
    return traceback.extract_tb(error.__traceback__)[-1].name == "retrieve_or_generate_kvcache"


def _summary(watch: Watch, env_steps: int, wall: float, ended_with: str | None) -> Summary:
    model = watch.policy._collect_model.world_model
    backend = importlib.import_module("kvcache.integrations.lightzero").backend_of(model)
    report = None if backend is None else backend.report
    stale = watch.stale_hits.count if watch.stale_hits is not None else backend.stale_hits
    return Summary(
        ended_with=ended_with,
        env_steps=env_steps,
        searches=watch.searches,
        wall_seconds=wall,
        search_seconds=watch.seconds["search"],
        cache_seconds=watch.seconds["inference"] - watch.seconds["forward"],
        peak_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        cache_bytes=own_cache_bytes(model) if backend is None else sum(backend.bytes_reserved.values()),
        distinct_keys=watch.distinct_keys,
        lookups=model.total_query_count + model.root_total_query_cnt,
        found=model.hit_count + model.root_hit_cnt,
        stale_hits=stale,
        validation=None if report is None else Validation(**vars(report)),
    )


def main() -> None:
    """Run the order in the file that is the first argument."""
    order = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print without Python goes to the log

    def progress(counts: dict[str, int]) -> None:
        print(json.dumps(counts), file=reports, flush=True)

    with chdir(order.folder), quietly(Path(LOG), lambda line: None):
        summary = run(order, progress)
        with whole_or_absent(SUMMARY) as beside:
            beside.write_bytes(msgspec.json.encode(summary))


if __name__ == "__main__":
    main()
