"""What a replay comes to, in a sentence for each cache that is compared with the first."""

from __future__ import annotations

from collections.abc import Collection

from kvbench.report.text import clean
from kvbench.results.replay import DEFAULT_CAPACITIES, OUTCOMES, BackendResult, ReplayResult

__all__ = ["answers", "pools_of"]

# Worst first: a wrong answer, then none.
_WORDING = {
    "wrong_content": "returns content that was never stored in",
    "stale_hit": "returns another state's content in",
    "context_mismatch": "returns another history in",
    "miss": "misses",
}
_SMALL = 0.1  # %, from where on one decimal says enough


def answers(replay: ReplayResult) -> list[str]:
    """A sentence for each cache but the first; of the first one alone where there is no other.

    Speed and memory are compared where both caches return the same. Elsewhere it says what is returned otherwise.
    """
    first = replay.first
    others = [each for each in replay.backends if each is not first]
    said = [_compared(replay, each) for each in others] or [f"{first.name} {_returns(first, OUTCOMES)}"]
    return [clean(f"{pools_of(replay)}: {each}.") for each in said]


def pools_of(replay: ReplayResult) -> str:
    """The sizes of the pools, in words."""
    label = replay.capacity.label
    return f"{label} pools" if label in DEFAULT_CAPACITIES else label


def _compared(replay: ReplayResult, other: BackendResult) -> str:
    first = replay.first
    differing = [outcome for outcome in OUTCOMES if first.count(outcome) != other.count(outcome)]
    if differing:
        return f"{first.name} {_returns(first, differing)}; {other.name} {_returns(other, differing)}"
    return f"{other.name} {_cost(replay, other)}; each of the two {_returns(other, OUTCOMES)}"


def _cost(replay: ReplayResult, other: BackendResult) -> str:
    first, ratio = replay.first, replay.baseline_over_backend.get(other.name)
    share = sum(other.bytes_reserved.values()) / (sum(first.bytes_reserved.values()) or 1)
    if ratio is None:
        return f"takes {share:.0%} of {first.name}'s memory".replace("%", " %")
    spread = f"{ratio.p25:.1f} to {ratio.p75:.1f}"
    if ratio.p25 <= 1 <= ratio.p75:
        speed = f"is about as fast as {first.name} ({spread} times)"
    else:
        speed = f"is {ratio.median:.1f} times as fast as {first.name} ({spread})"
    return f"{speed}, in {share:.0%} of its memory".replace("%", " %")


def _returns(backend: BackendResult, told: Collection[str]) -> str:
    """What lookups return, of the outcomes that are ``told``."""
    shares = {text: backend.rate(name) for name, text in _WORDING.items() if name in told}
    first, *rest = [f"{text} {_percent(share)}" for text, share in shares.items() if share] or [""]
    if first:
        return " and ".join([f"{first} of its lookups", *rest])
    return "answers every lookup right" if backend.count("lookups") else "was asked for nothing"


def _percent(share: float) -> str:
    return f"{share:.1f} %" if share >= _SMALL else f"{share:.1g} %"
