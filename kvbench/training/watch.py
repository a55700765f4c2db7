"""What a training run does, noted number by number, and the time that its searches and caches take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kvbench.training.own_cache import StaleHits
from kvcache import hash_states

__all__ = ["Note", "Watch"]

# Takes the numbers of one search of an environment ("search"), learning step ("learn") or episode ("episode").
Note = Callable[[str, dict[str, Any]], None]


class Watch:
    """Watches LightZero's classes of a policy and a collector: one run, from before the policy is made.

    A search's time is split in the same way for every cache: its inferences, less the forward passes of the transformer
    and the encoder, are the cache's. The time for watching is in none of them.

    Args:
        policy: the class.
        collector: the class.
        note: takes the numbers.

    Attributes:
        seconds: of ``search`` (while collecting); in them ``inference``; in these ``forward``.
        searches: of all environments at once, while collecting.
        policy: the policy, when it is made.
        latents: predicted while collecting.
        keys: their distinct keys.
        stale_hits: of LightZero's own cache; None where the model has another one.
    """

    def __init__(self, policy: Any, collector: Any, note: Note) -> None:
        self.seconds = {"search": 0.0, "inference": 0.0, "forward": 0.0}
        self.searches = self.latents = 0
        self.keys: set[int] = set()
        self.policy: Any = None
        self.stale_hits: StaleHits | None = None
        self._note = note
        self._inside: str | None = None  # what is being timed now
        for owner, name, watched in (
            (policy, "_init_collect", self._init_collect),
            (policy, "_forward_collect", self._forward_collect),
            (policy, "_forward_learn", self._forward_learn),
            (collector, "collect", self._collect),
        ):
            setattr(owner, name, _method(getattr(owner, name), watched))

    @property
    def distinct_keys(self) -> float:
        """Share of the predicted latents that have a key of their own."""
        return len(self.keys) / max(1, self.latents)

    # In place of LightZero's methods, each with the original and its object in front.

    def _init_collect(self, original: Callable[..., None], policy: Any) -> None:
        original(policy)
        self.policy = policy
        model = policy._collect_model.world_model
        if isinstance(model.past_kv_cache_recurrent_infer, dict):
            self.stale_hits = StaleHits(model)
        model.forward_recurrent_inference = self._timed("inference", model.forward_recurrent_inference, self._hash)
        model.forward_initial_inference = self._timed("inference", model.forward_initial_inference)
        model.forward = self._timed("forward", model.forward)
        tokenizer = model.tokenizer
        tokenizer.encode_to_obs_embeddings = self._timed("forward", tokenizer.encode_to_obs_embeddings)

    def _forward_collect(self, original: Callable[..., Any], policy: Any, *args: Any, **kwargs: Any) -> Any:
        self._inside = "search"
        start = time.perf_counter()
        try:
            output = original(policy, *args, **kwargs)
        finally:
            self.seconds["search"] += time.perf_counter() - start
            self._inside = None
        self.searches += 1
        for env, found in output.items():
            self._note("search", {"environment": int(env), **_search(found)})
        return output

    def _forward_learn(self, original: Callable[..., Any], policy: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(policy, *args, **kwargs)
        weights = sum(float(each.detach().double().sum()) for each in policy._model.parameters())
        self._note("learn", {**_scalars(output), "sum of weights": weights})
        return output

    def _collect(self, original: Callable[..., Any], collector: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(collector._episode_info, _Episodes):
            collector._episode_info = _Episodes(self._note)
        return original(collector, *args, **kwargs)

    # Timing.

    def _timed(
        self, name: str, call: Callable[..., Any], after: Callable[[Any], None] = lambda output: None
    ) -> Callable[..., Any]:
        """The call, timed under ``name`` while a search collects; ``after`` gets its output, and is in no time."""
        around = {"inference": "search", "forward": "inference"}[name]

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside != around:
                return call(*args, **kwargs)
            self._inside = name
            start = time.perf_counter()
            try:
                output = call(*args, **kwargs)
            finally:
                taken = time.perf_counter() - start
                self.seconds[name] += taken
                self._inside = around
            start = time.perf_counter()
            after(output)
            self.seconds["search"] -= time.perf_counter() - start
            return output

        return timed

    def _hash(self, output: Any) -> None:
        keys = hash_states(output[1])
        self.keys.update(keys)
        self.latents += len(keys)


class _Episodes(list[dict[str, Any]]):
    """A collector's list of episodes, which notes each."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self._note = note

    def append(self, info: dict[str, Any]) -> None:
        super().append(info)
        self._note("episode", {"return": float(np.asarray(info["reward"]).sum()), "length": int(info["step"])})


def _method(original: Callable[..., Any], watched: Callable[..., Any]) -> Callable[..., Any]:
    return lambda owner, *args, **kwargs: watched(original, owner, *args, **kwargs)


def _search(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "action": np.asarray(found["action"]).tolist(),
        "visits": np.asarray(found["visit_count_distributions"]).tolist(),
        "searched value": float(found["searched_value"]),
        "predicted value": float(np.asarray(found["predicted_value"]).reshape(-1)[0]),
    }


def _scalars(output: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in output.items() if np.size(value) == 1 and not isinstance(value, str)}
