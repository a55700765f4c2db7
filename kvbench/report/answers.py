"""What a replay comes to, in a sentence for each cache that is compared with the first."""

from __future__ import annotations

from collections.abc import Collection

from kvbench.report.text import clean
from kvbench.results.replay import OUTCOMES, BackendResult, ReplayResult

__all__ = ["answers"]

# Worst first: a wrong answer, then none.
_WORDING = {
    "wrong_content": "returns content that was never stored in {} of its lookups",
    "stale_hit": "returns another state's content in {} of its lookups",
    "context_mismatch": "returns the state with another history in {} of its lookups",
    "miss": "misses {} of its lookups",
}
_SMALL = 0.1  # %, from where on one decimal says enough


def answers(replay: ReplayResult) -> list[str]:
    """A sentence for each cache but the first; of the first one alone where there is no other.

    Speed and memory are compared where both caches return the same. Elsewhere it says what is returned otherwise.
    """
    first = replay.first
    others = [each for each in replay.backends if each is not first]
    label = replay.capacity.label
    pools = "default pools" if label == "default" else label
    said = [_compared(replay, each) for each in others] or [f"{first.name} {_returns(first, OUTCOMES)}"]
    return [clean(f"{pools}: {each}.") for each in said]


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
    found = [
        text.format(_percent(share))
        for name, text in _WORDING.items()
        if name in told and (share := backend.rate(name))
    ]
    if found:
        return " and ".join(found)
    return "answers every lookup right" if backend.count("lookups") else "was asked for nothing"


def _percent(share: float) -> str:
    return f"{share:.1f} %" if share >= _SMALL else f"{share:.1g} %"
