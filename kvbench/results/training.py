"""The file that ``kvbench train --json`` writes."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from kvbench.results.decode import Scalars

__all__ = ["MADE_BY", "TrainedBackend", "TrainingResults", "Validation"]

MADE_BY = "'kvbench train ... --json FILE'"


class Validation(Struct, frozen=True, kw_only=True):
    """Retrievals of both caches, compared one by one; see ``kvcache.ShadowReport``. A mismatch ends the run."""

    lookups: int
    compared: int  # both found a context, and the two are the same
    largest_difference: float  # between two elements of these
    stale_hits: int  # of the legacy cache
    only_primary: int  # found by the new cache alone
    only_shadow: int  # found by the legacy cache alone


class TrainedBackend(Struct, frozen=True, kw_only=True):
    """One run. A search is that of all environments at once, and only searches that collect are timed and counted."""

    name: str
    ended_with: str | None  # what ended it before its time; None where nothing did
    first_difference: str | None  # to the first backend, in words; None where every number is the same
    largest_difference: float  # of searched values, up to the first other action
    env_steps: int
    searches: int
    learn_steps: int
    wall_seconds: float
    searches_per_second: float
    cache_share: float  # of a search's time
    cache_ms_per_search: float
    peak_bytes: int  # of the process
    cache_bytes: int  # reserved by the cache
    distinct_keys: float  # share of predicted latents that have a key of their own
    lookups: int  # of roots and nodes, of the whole run, evaluations included; each node of a reanalysis is a miss
    hit_rate: float  # of right content
    stale_hit_rate: float  # of another key's content
    miss_rate: float
    stale_hits: int
    validation: Validation | None
    returns: list[tuple[int, float]]  # environment steps, and an episode's return
    losses: list[tuple[int, float]]  # learning step, and the total loss


class TrainingResults(Struct, frozen=True, kw_only=True):
    """The whole file."""

    format: Literal["kvcache-training"] = "kvcache-training"
    schema_version: Literal[1] = 1
    command: list[str]  # after "kvbench"
    library: str
    environment: str
    settings: dict[str, Any]
    seed: int
    env_steps: int
    machine: Scalars
    packages: Scalars
    backends: list[TrainedBackend]
