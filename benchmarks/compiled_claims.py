"""What compiled passes gain on this machine; printed by ``claims.py``."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from kvcache import GEOMETRIES, TOKENS_PER_STEP, Geometry
from kvcache.world_model import Inference, WorldModel, WorldModelConfig

__all__ = ["compiled"]

WARM_UPS = 3  # the first one compiles
REPETITIONS = 60


def compiled() -> None:
    """A recurrent inference whose passes are compiled beside one whose passes are not, in turns; time is the CPU's."""
    print("| geometry | contexts | plain, us | compiled, us | times faster | values apart | compilations |")
    print("|---|---|---|---|---|---|---|")
    for name, geometry in GEOMETRIES.items():
        models = [
            WorldModel(WorldModelConfig(geometry, use_new_cache_manager=True, compile=each)) for each in (False, True)
        ]
        for model in models:
            model.forward_initial_inference(np.ones((geometry.env_num, 4), dtype=np.float32))
        for tokens in _lengths(geometry):
            seconds, apart = _measured(models, tokens)
            plain, fast = np.median(seconds, axis=0) * 1e6
            low, middle, high = np.percentile(seconds[:, 0] / seconds[:, 1], (25, 50, 75))
            count = models[1].step_counts["compilations"]
            print(
                f"| {name} | {tokens} | {plain:.0f} | {fast:.0f} | {middle:.2f} ({low:.2f} to {high:.2f}) | "
                f"{apart:.1g} | {count} |",
                flush=True,
            )


def _lengths(geometry: Geometry) -> list[int]:
    """Tokens of a short context, and of one that is as long as any that is stored."""
    return [3, geometry.slid_size]


def _measured(models: list[WorldModel], tokens: int) -> tuple[np.ndarray, float]:
    """Seconds of each inference ``[n, 2]``, and how far apart the values are at most."""
    plays = [_inferences(model, tokens) for model in models]
    rows, apart = [], 0.0
    for number in range(WARM_UPS + REPETITIONS):
        row, values = [0.0, 0.0], [np.zeros(0), np.zeros(0)]
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.thread_time()
            found = next(plays[which])
            row[which] = time.thread_time() - start
            values[which] = found.values
        apart = max(apart, float(np.abs(values[0] - values[1]).max()))
        if number >= WARM_UPS:
            rows.append(row)
    return np.array(rows), apart


def _inferences(model: WorldModel, tokens: int) -> Iterator[Inference]:
    """Recurrent inferences from a context of that many tokens, all alike."""
    rows = model.geometry.env_num
    model.clear_caches()
    found = model.forward_initial_inference(np.ones((rows, 4), dtype=np.float32))
    for step in range(1, 1 + tokens // TOKENS_PER_STEP):
        found = model.forward_initial_inference(
            np.full((rows, 4), step, dtype=np.float32), found.latents, [0] * rows, timesteps=step
        )
    while True:
        below = model.forward_recurrent_inference(found.latents, [1] * rows, timesteps=tokens // TOKENS_PER_STEP)
        assert set(below.sizes) == {tokens}
        yield below
