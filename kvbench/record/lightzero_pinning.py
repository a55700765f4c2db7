"""Seeds for what LightZero 0.2.0 leaves to chance: its tree's ties, and the first state of its environments."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from kvbench.errors import KvbenchError

__all__ = ["pin"]

_TREE = "kvbench.record._fixed_tree"


def pin(seed: int) -> None:
    """Make everything of a run that is still to come depend on ``seed`` alone.

    Call it before LightZero is imported, and again before the next run.

    Raises:
        KvbenchError: the compiled part is missing, so that the tree would be seeded from the clock.
    """
    _load_tree(seed)
    made = 0

    def seeded(make: Callable[..., Any]) -> Callable[..., Any]:
        def make_and_seed(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            env = make(*args, **kwargs)
            env.reset(seed=1000 * seed + made)
            return env

        make_and_seed.unpinned = make  # type: ignore[attr-defined]
        return make_and_seed

    for name in ("gym", "gymnasium"):
        if importlib.util.find_spec(name) is not None:
            library: Any = importlib.import_module(name)
            library.make = seeded(getattr(library.make, "unpinned", library.make))


def _load_tree(seed: int) -> None:
    """Let the compiled tree keep the seed that it is given here."""
    found = importlib.util.find_spec(_TREE)
    if found is None or found.origin is None:
        raise KvbenchError(
            "the compiled part that fixes the seed of LightZero's tree is missing: install kvcache where a C compiler "
            "is, on Linux"
        )
    ctypes.CDLL(found.origin, mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(None).srand(seed)
