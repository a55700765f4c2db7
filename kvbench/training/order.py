"""What ``kvbench train`` asks of a worker, and the files that the worker leaves. It needs no torch."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from kvbench.results.training import Validation

__all__ = ["LOG", "NUMBERS", "SUMMARY", "Order", "Summary"]

NUMBERS, SUMMARY, LOG = "numbers.jsonl", "summary.json", "run.log"  # in the order's folder


class Order(Struct, frozen=True, kw_only=True):
    """What to run.

    Attributes:
        config: a name or a file, as for ``load_config``.
        settings: other values of the configuration, by path.
        backend: a name from ``TRAINED``.
        validates: whether a new cache is compared with a legacy one at every retrieval.
        env_steps: after which training ends, with the first collection that reaches it.
        seed: of everything.
        threads: of torch.
        folder: for all files.
    """

    config: str
    settings: dict[str, Any]
    backend: str
    validates: bool
    env_steps: int
    seed: int
    threads: int
    folder: str


class Summary(Struct, frozen=True, kw_only=True):
    """What a run took; see ``TrainedBackend``."""

    ended_with: str | None
    env_steps: int
    searches: int
    wall_seconds: float
    search_seconds: float
    cache_seconds: float
    peak_bytes: int
    cache_bytes: int
    distinct_keys: float
    lookups: int
    found: int  # right or stale
    stale_hits: int
    validation: Validation | None
