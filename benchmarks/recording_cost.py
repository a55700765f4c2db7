"""What recording costs a search of LightZero: ``python benchmarks/recording_cost.py --env cartpole``, with LightZero.

Every search of a collector runs twice from the same state, observed and not, in alternating order. Printed are the
median of the paired ratios of CPU time and how many pairs gave the same actions, visits and values.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import importlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kvbench.measure.machine import Machine
from kvbench.record.lightzero import LightZeroRecorder
from kvbench.record.lightzero_config import load_config
from kvbench.record.lightzero_log import quietly
from kvbench.record.lightzero_pinning import pin
from kvbench.record.lightzero_run import LightZeroRun, RunSettings
from kvbench.trace.writer import TraceWriter

# Enough for keys of their own.
TRAINING = {
    "cartpole": {"policy.update_per_collect": 40},
    "lunarlander": {"policy.update_per_collect": 10, "policy.batch_size": 32},
}


class EndError(Exception):
    """Ends the collector."""


class Pairs:
    """Runs each search of a policy twice.

    Attributes:
        ratios: CPU seconds observed over CPU seconds not observed, of each search.
        seconds: of CPU, of each search that is not observed.
        same: searches with the same output.
    """

    def __init__(self, run: LightZeroRun, writer: TraceWriter, searches: int) -> None:
        self.ratios: list[float] = []
        self.seconds: list[float] = []
        self.same = 0
        self._run = run
        self._writer = writer
        self._searches = searches
        self._original = run.policy._forward_collect

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """In place of the policy's own."""
        number = len(self.ratios)
        if number == self._searches:
            raise EndError
        policy = self._run.policy
        state = copy.deepcopy((policy.last_batch_obs, policy.last_batch_action))
        seconds: dict[bool, float] = {}
        outputs = []
        for observed in (False, True) if number % 2 else (True, False):
            policy.last_batch_obs, policy.last_batch_action = copy.deepcopy(state)
            np.random.seed(number)
            torch.manual_seed(number)
            ctypes.CDLL(None).srand(number)
            with self._recorder() if observed else nullcontext():
                start = time.thread_time()
                output = self._original(*args, **kwargs)
                seconds[observed] = time.thread_time() - start
            outputs.append(_numbers(output))
        self.seconds.append(seconds[False])
        self.ratios.append(seconds[True] / seconds[False])
        self.same += outputs[0] == outputs[1]
        return output

    def _recorder(self) -> LightZeroRecorder:
        recorder = LightZeroRecorder(self._run.world_model, self._writer)
        recorder._started = True  # in the middle of an episode: the trace is thrown away
        return recorder


def _numbers(output: dict[int, dict[str, Any]]) -> str:
    return repr(
        {env: {name: np.asarray(value).tolist() for name, value in each.items()} for env, each in output.items()}
    )


def measure(env: str, searches: int, settings: dict[str, Any], say: Callable[[str], None]) -> Pairs:
    """Train a little in the working folder, then collect."""
    pin(0)
    run = LightZeroRun(load_config(env).changed(settings), RunSettings(env, 0, 1, searches, changes=settings))
    run.train(1, say, {})
    with TraceWriter("thrown-away.parquet", run.header()) as writer:
        collector = run.collector()
        pairs = Pairs(run, writer, searches)
        run.policy._forward_collect = pairs.forward
        collector._policy = run.policy.collect_mode
        try:
            collector.collect(n_episode=8 * (searches + 1), policy_kwargs=run.policy_kwargs)
        except EndError:
            collector.close()
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description="times searches of LightZero with and without recording")
    parser.add_argument("--env", default="cartpole", choices=sorted(TRAINING))
    parser.add_argument("--searches", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    importlib.import_module("kvbench.record.lightzero_config").require_lightzero()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with quietly(Path("run.log"), print) as (say, _):
            pairs = measure(arguments.env, arguments.searches, TRAINING[arguments.env], say)
        os.chdir("/")
    low, middle, high = np.percentile(pairs.ratios, (25, 50, 75))
    print(
        f"{arguments.env}: a recorded search takes {middle:.3f} times as long ({low:.3f} to {high:.3f}, median and "
        f"quartiles of {len(pairs.ratios)} pairs; {np.median(pairs.seconds) * 1e3:.0f} ms of CPU), "
        f"{pairs.same} of {len(pairs.ratios)} pairs the same"
    )
    print(Machine.describe())


if __name__ == "__main__":
    main()
