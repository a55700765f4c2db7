"""Checking a backend's contexts: all of a replay, token by token."""

from __future__ import annotations

import numpy as np
import torch

from kvbench.replay.content import Contents, generated_context
from kvbench.replay.contexts import UNKNOWN, KnownContexts
from kvbench.replay.drive import Content
from kvbench.replay.hierarchy import INIT, RECUR, Hierarchy
from kvbench.replay.outcomes import Outcome, Outcomes, RecordedContexts, judge
from kvbench.replay.tokens import EMPTY_CONTEXT
from kvbench.trace.steps import Step
from kvcache import EMPTY, MISS, CacheBackend, KeysValues

__all__ = ["CheckedContent"]


class CheckedContent(Content):
    """The model's part of a replay whose contents are checked.

    Every appended token has its own content, which depends on the key and the whole history. Every row of every
    assembled batch is compared with it, padding included. After a batch is stored, its memory is filled with NaN: so
    an entry that shares memory with the batch is found. A miss needs a reason: the key was never stored, the pool was
    cleared, or its counters say that it evicted. Nothing is found under a key that was not stored since its pool was
    cleared. ``faults`` say what is wrong with the backend, each with its place.
    """

    def __init__(self, backend: CacheBackend, contents: Contents) -> None:
        self.outcomes = Outcomes()
        self.faults: list[str] = []
        self._geometry = backend.config.geometry
        self._recorded = RecordedContexts()
        self._known = KnownContexts(contents, backend.config)
        self._rows: list[int] = []  # context of each row of the batch, UNKNOWN where it is damaged
        self._supplied: list[KeysValues] = []
        self._stored: Hierarchy[set[int]] = Hierarchy(lambda kind: set())  # keys since the last clear

    def generate(self, step: Step, row: int) -> KeysValues:
        key = step.parents[row]
        assert key is not None
        padding = (0, 0, 0, self._geometry.context_length - 1)
        block = torch.nn.functional.pad(self._known.generate(key), padding)
        keys_values = KeysValues.from_block(block[None], size=1)
        self._supplied.append(keys_values)
        return keys_values

    def assembled(self, backend: CacheBackend, step: Step, found: list[int]) -> None:
        sizes = np.array(backend.keys_values_wm_size_list)
        starts = np.array([backend.row_start(row) for row in range(len(sizes))])
        self._rows = self._known.recognise(backend.keys_values_wm, starts, sizes)
        for row, (context, report) in enumerate(zip(self._rows, found, strict=True)):
            key = step.parents[row]
            if report == MISS:
                if self._must_hold(backend, step, row):
                    self._fault(step, row, f"nothing found under key {key:#018x}, which was stored and never evicted")
            elif key is not None and not self._kinds(step, row):
                self._fault(step, row, f"found key {key:#018x}, which was not stored since its pool was cleared")
            self._judge(step, row, report, context)

    def append(self, batch: KeysValues, step: Step) -> None:
        block = self._known.extend(self._rows, step.keys, step.tokens)
        for number, layer in enumerate(batch):
            layer.update(block[:, number, 0], block[:, number, 1])

    def stored(self, backend: CacheBackend, step: Step) -> None:
        self._recorded.store(step)
        if self._geometry.keeps_past:
            for env, key in zip(step.envs, step.keys, strict=True):
                self._stored.written(env, step.scope).add(key)
        for keys_values in (backend.keys_values_wm, *self._supplied):
            for tensor in keys_values.layer_tensors():
                tensor.fill_(torch.nan)
        self._supplied.clear()

    def cleared(self, step: Step) -> None:
        """What is cleared after the step is cleared."""
        for keys in self._stored.cleared_by(step):
            keys.clear()

    def _must_hold(self, backend: CacheBackend, step: Step, row: int) -> bool:
        """Whether one of the lookup's pools stored the key after its last clear, and never evicted."""
        pools = {INIT: backend.init_pools[step.envs[row]], RECUR: backend.recur_pool}
        # Where evictions are not counted any pool may have lost anything.
        return backend.stats_enabled and any(not pools[kind].stats.evictions for kind in self._kinds(step, row))

    def _kinds(self, step: Step, row: int) -> list[str]:
        """The kinds of the lookup's pools that stored its key since they were cleared."""
        asked = self._stored.asked(step.envs[row], step.scope)
        return [kind for kind, stored in asked if step.parents[row] in stored]

    def _judge(self, step: Step, row: int, report: int, context: int) -> None:
        key = step.parents[row]
        if key is None:
            if context != EMPTY_CONTEXT:
                self._fault(step, row, "a row that starts empty is not empty")
            return
        wanted = (key, self._recorded.wanted(step, row))
        if report == MISS:
            outcome = judge(wanted, None)
            if context == UNKNOWN or self._known.entry(context) != (key, generated_context(key)):
                self._fault(step, row, "the context supplied after the miss is not in the batch")
        elif report == EMPTY and self._geometry.slid_size == 0:
            outcome = Outcome.HIT  # at context_length 3 a slid window is empty: all contexts are alike
        elif context in (UNKNOWN, EMPTY_CONTEXT):
            outcome = Outcome.WRONG_CONTENT
            self._fault(step, row, f"the context found under key {key:#018x} was never stored")
        else:
            outcome = judge(wanted, self._known.entry(context))
        self.outcomes.add(step.scope, outcome, step.recorded_hits[row])

    def _fault(self, step: Step, row: int, message: str) -> None:
        self.faults.append(f"search {step.search}, simulation {step.simulations[row]}, env {step.envs[row]}: {message}")
