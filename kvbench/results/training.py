"""The file that ``kvbench train --json`` writes."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from kvbench.results.decode import Scalars

__all__ = ["TrainedBackend", "TrainingResults"]


class TrainedBackend(Struct, frozen=True, kw_only=True):
    """One run. Rates are of recurrent lookups; None where LightZero's own cache does not count.

    ``first_difference`` is in words, and None where every number is that of the first backend.
    """

    name: str
    first_difference: str | None
    largest_difference: float  # of searched values, up to the first other action
    env_steps: int
    searches: int
    learn_steps: int
    wall_seconds: float
    searches_per_second: float
    cache_share: float  # of a search's time
    cache_ms_per_search: float
    peak_bytes: int  # of the process
    cache_bytes: int
    distinct_keys: float  # share of predicted latents that have a key of their own
    hit_rate: float
    miss_rate: float
    stale_hits: int | None
    returns: list[tuple[int, float]]  # environment steps, and an episode's return
    losses: list[tuple[int, float]]  # learning step, and the total loss


class TrainingResults(Struct, frozen=True, kw_only=True):
    """The whole file."""

    format: Literal["kvcache-training"] = "kvcache-training"
    schema_version: Literal[1] = 1
    library: str
    environment: str
    settings: dict[str, Any]
    seed: int
    env_steps: int
    machine: Scalars
    packages: Scalars
    backends: list[TrainedBackend]
