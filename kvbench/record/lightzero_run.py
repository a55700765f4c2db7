"""LightZero 0.2.0: training a model and recording its search, from nothing to a trace file.

``record_run`` trains with LightZero's own entry, collects with its own collector under observation, and leaves a trace.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, chdir, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kvbench.files import temporary_folder
from kvbench.record.lightzero import LightZeroRecorder, RecordingError, geometry_of
from kvbench.record.lightzero_config import (
    LIGHTZERO_VERSION,
    ConfigError,
    UniZeroConfig,
    load_config,
    require_lightzero,
)
from kvbench.record.lightzero_log import quietly, tail
from kvbench.record.lightzero_pinning import pin
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceHeader
from kvbench.trace.writer import TraceWriter, check_new

__all__ = ["LightZeroRun", "RunSettings", "record_run"]


@dataclass(frozen=True)
class RunSettings:
    """Settings of a LightZero run. Raises ValueError for a number out of range."""

    config: str  # a name from ``ENVIRONMENTS``, or a file: see ``load_config``
    seed: int
    # Environment steps, with LightZero's own ``train_unizero``; 0 records untrained weights. Training ends with the
    # first collection that reaches them.
    train_steps: int
    searches: int  # to record
    threads: int = 1  # of torch
    changes: Mapping[str, Any] = field(default_factory=dict)  # of ``main_config``, by path

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("train_steps", 0), ("searches", 1), ("threads", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be {least} or more, got {value}")


def record_run(
    settings: RunSettings, output: str | Path, progress: Callable[[str], None] = lambda line: None
) -> TraceHeader:
    """Train UniZero with LightZero 0.2.0 on the CPU, collect with it, and record the collecting as a trace.

    ``progress`` is called with a line of text now and then.

    Returns:
        The header of the written trace.

    Raises:
        FileExistsError: the trace or its journal exists.
        OSError: the output's folder cannot be written to.
        ConfigError: LightZero 0.2.0 is not installed, or the configuration is bad.
        RecordingError: the run failed (with the end of its log).
    """
    output = Path(output).absolute()
    require_lightzero()
    check_new(output)  # the writer does the same, but only after the training
    source = str(Path(settings.config).absolute()) if Path(settings.config).is_file() else settings.config
    with (
        temporary_folder("kvcache-lightzero") as folder,
        chdir(folder),  # LightZero writes beside where it is started
        ExitStack() as stack,
    ):
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(settings.threads)
        log = folder / "run.log"
        try:
            with quietly(log, progress) as (say, evaluations):
                pin(settings.seed)  # before a configuration imports LightZero
                run = LightZeroRun(load_config(source).changed(settings.changes), settings)
                run.train(settings.train_steps, say, evaluations)
                run.record(output, settings.searches, say)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise RecordingError(
                f"the LightZero run failed: {type(error).__name__}: {error}\nThe end of its log:\n{tail(log)}"
            ) from error
    reader = TraceReader(output)
    reader.check()
    return reader.header


class _EndOfRecordingError(Exception):
    """Ends LightZero's collector when enough searches are recorded: it offers no other way."""


class LightZeroRun:
    """A LightZero run on the CPU, in the working folder."""

    def __init__(self, config: UniZeroConfig, settings: RunSettings) -> None:
        self.config = config
        self.settings = settings
        self.seed = settings.seed
        self.policy: Any = None
        self.training: dict[str, Any] = {}

    def _compiled(self) -> Any:
        main, create = self.config.fresh()
        compile_config = importlib.import_module("ding.config").compile_config
        return compile_config(main, seed=self.seed, env=None, auto=True, create_cfg=create, save_cfg=False)

    def train(self, steps: int, say: Callable[[str], None], evaluations: dict[int, float]) -> None:
        """Make the policy: trained for ``steps`` environment steps, or untrained for 0."""
        if not steps:
            importlib.import_module("ding.utils").set_pkg_seed(self.seed, use_cuda=False)
            self.policy = importlib.import_module("ding.policy").create_policy(
                self._compiled().policy, enable_field=["learn", "collect", "eval"]
            )
            return
        say(f"training on {self.config.name} for {steps} environment steps")
        start = time.monotonic()
        train = getattr(importlib.import_module("lzero.entry"), self.config.entry)
        self.policy = train(self.config.fresh(), seed=self.seed, max_env_step=steps)
        checkpoints = Path().glob("run*/ckpt/iteration_*.pth.tar")
        self.training = {
            "max_env_step": steps,
            "train_iterations": max(int(path.name.split("_")[1].split(".")[0]) for path in checkpoints),
            "wall_seconds": round(time.monotonic() - start, 1),
            "evaluation_return_means": {str(iteration): mean for iteration, mean in evaluations.items()},
        }

    def collector(self) -> Any:
        """LightZero's collector for the policy, on environments of its own."""
        config = self._compiled()
        envs = importlib.import_module("ding.envs")
        make, collector_configs, _ = envs.get_vec_env_setting(config.env)
        env = envs.create_env_manager(config.env.manager, [partial(make, cfg=each) for each in collector_configs])
        env.seed(self.seed)
        importlib.import_module("ding.utils").set_pkg_seed(self.seed, use_cuda=False)
        return getattr(importlib.import_module("lzero.worker"), self.config.collector)(
            env=env, policy=self.policy.collect_mode, exp_name=config.exp_name, policy_config=self.policy._cfg
        )

    @property
    def world_model(self) -> Any:
        return self.policy._collect_model.world_model

    @property
    def policy_kwargs(self) -> dict[str, float]:
        """The arguments that ``train_unizero`` gives the collector at this point of the training."""
        config = self.policy._cfg
        temperature = importlib.import_module("lzero.policy").visit_count_temperature(
            config.manual_temperature_decay,
            config.fixed_temperature_value,
            config.threshold_training_steps_for_final_temperature,
            trained_steps=self.training.get("train_iterations", 0),
        )
        return {"temperature": temperature, "epsilon": 0.0}

    def record(self, output: Path, searches: int, say: Callable[[str], None]) -> None:
        """Collect until ``searches`` searches are in the trace ``output``."""
        header, collector = self.header(), self.collector()

        def on_search(recorded: int) -> None:
            if recorded == searches:
                raise _EndOfRecordingError
            if recorded % 10 == 0:
                say(f"recorded {recorded} of {searches} searches")

        # More episodes than the searches can end: an environment that is done starts again at once, so that every
        # search has all its rows.
        episodes = header.geometry.env_num * (searches + 1)
        with (
            closing(collector),
            TraceWriter(output, header) as writer,
            suppress(_EndOfRecordingError),
            LightZeroRecorder(self.world_model, writer, searches=searches, on_search=on_search),
        ):
            while True:
                collector.collect(n_episode=episodes, policy_kwargs=self.policy_kwargs)
        say(f"recorded {searches} searches, {writer.rows} events")

    def header(self) -> TraceHeader:
        """Of a trace of this run, training included."""
        world_model = self.world_model
        return TraceHeader.create(
            geometry_of(world_model, self.config.geometry, self.policy._cfg.num_simulations),
            {
                "library": "LightZero",
                "version": LIGHTZERO_VERSION,
                "environment": self.config.name,
                "seed": self.seed,
                "settings": dict(self.settings.changes),
                "trained": bool(self.training),
                "training": self.training,
                "packages": {name: importlib.metadata.version(name) for name in ("torch", "numpy")},
                "python": platform.python_version(),
            },
            synthetic=False,
            backend=f"legacy-{LIGHTZERO_VERSION}",
            pools={"init": world_model.shared_pool_size_init, "recur": world_model.shared_pool_size},
            actions=getattr(world_model.config, "action_space_size", None),
        )
