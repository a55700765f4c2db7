"""Checking a backend's contexts: all of a replay, token by token."""

from __future__ import annotations

import numpy as np
import torch
import xxhash

from kvbench.replay.content import NO_CONTEXT, Contents, as_entry, extend_context, generated_context
from kvbench.replay.drive import Content
from kvbench.replay.hierarchy import INIT, RECUR, Hierarchy
from kvbench.replay.outcomes import Outcome, Outcomes, RecordedContexts, judge
from kvbench.trace.steps import Step
from kvcache import EMPTY, MISS, CacheBackend, KeysValues

__all__ = ["CheckedContent"]

_Token = tuple[int, int]  # (context in which it was appended, its index among the tokens appended then)


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
        self._contents = contents
        self._geometry = backend.config.geometry
        self._device, self._dtype = backend.config.device, backend.config.dtype
        self._recorded = RecordedContexts()
        self._tokens: dict[int, list[_Token]] = {NO_CONTEXT: []}  # context -> its live tokens
        self._keys: dict[int, int] = {}  # context -> the key it belongs to
        self._by_last_token: dict[int, int] = {}  # digest of a context's last token -> the context
        self._rows: list[int | None] = []  # context of each row of the batch, None where it is damaged
        self._supplied: list[KeysValues] = []
        self._stored: Hierarchy[set[int]] = Hierarchy(lambda kind: set())  # keys since the last clear

    def generate(self, step: Step, row: int) -> KeysValues:
        key = step.parents[row]
        assert key is not None
        context = generated_context(key)
        self._define(context, key, [(context, 0)])
        token = as_entry(self._contents.sequence([(context, 0)]), self._device, self._dtype)
        block = torch.nn.functional.pad(token, (0, 0, 0, self._geometry.context_length - 1))
        keys_values = KeysValues.from_block(block[None], size=1)
        self._supplied.append(keys_values)
        return keys_values

    def assembled(self, backend: CacheBackend, step: Step, found: list[int]) -> None:
        sizes = backend.keys_values_wm_size_list
        batch = backend.keys_values_wm.block.detach().to(device="cpu", dtype=torch.float32).numpy()
        longest = max(sizes)
        self._rows = []
        for row, (size, report) in enumerate(zip(sizes, found, strict=True)):
            start = backend.row_start(row)
            context = self._recognise(batch[row, ..., start : start + size, :])
            if batch[row, ..., :start, :].any() or batch[row, ..., start + size : longest, :].any():
                context = None
            self._rows.append(context)
            key = step.parents[row]
            if report == MISS and self._must_hold(backend, step, row):
                self._fault(step, row, f"nothing found under key {key:#018x}, which was stored and never evicted")
            if key is not None and report != MISS and not self._kinds(step, row):
                self._fault(step, row, f"found key {key:#018x}, which was not stored since its pool was cleared")
            self._judge(step, row, report, context)

    def append(self, batch: KeysValues, step: Step) -> None:
        tokens = []
        for row, key in enumerate(step.keys):
            before = self._rows[row]
            context = extend_context(NO_CONTEXT if before is None else before, key)
            size = 0 if before is None else len(self._tokens[before])
            appended = [(context, index) for index in range(step.tokens)]
            tokens.append(as_entry(self._contents.sequence(appended, first=size), self._device, self._dtype))
            if before is not None:
                first, count = self._geometry.window(size + step.tokens)
                self._define(context, key, (self._tokens[before] + appended)[first : first + count])
        block = torch.stack(tokens)
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

    def _define(self, context: int, key: int, tokens: list[_Token]) -> None:
        self._tokens[context] = tokens
        self._keys[context] = key
        if tokens:
            self._by_last_token[_digest(self._contents.token(*tokens[-1]))] = context

    def _recognise(self, live: np.ndarray) -> int | None:
        """The context whose content is ``live`` ``[L, 2, H, n, D]``; None if no such context was ever stored."""
        size = live.shape[3]
        if size == 0:
            return NO_CONTEXT
        if not np.isfinite(live).all():
            return None
        last = live[..., -1, :] - self._contents.positions[size - 1]
        context = self._by_last_token.get(_digest(last.astype(np.int8)))
        if context is None or len(self._tokens[context]) != size:
            return None
        wanted = np.moveaxis(self._contents.sequence(self._tokens[context]), 0, 3)
        return context if np.array_equal(wanted, live) else None

    def _judge(self, step: Step, row: int, report: int, context: int | None) -> None:
        key = step.parents[row]
        if key is None:
            if context != NO_CONTEXT:
                self._fault(step, row, "a row that starts empty is not empty")
            return
        wanted = (key, self._recorded.wanted(step, row))
        if report == MISS:
            outcome = judge(wanted, None)
            if context != generated_context(key):
                self._fault(step, row, "the context supplied after the miss is not in the batch")
        elif report == EMPTY and self._geometry.slid_size == 0:
            outcome = Outcome.HIT  # at context_length 3 a slid window is empty: all contexts are alike
        elif context is None or context == NO_CONTEXT:
            outcome = Outcome.WRONG_CONTENT
            self._fault(step, row, f"the context found under key {key:#018x} was never stored")
        else:
            outcome = judge(wanted, (self._keys[context], context))
        self.outcomes.add(step.scope, outcome, step.recorded_hits[row])

    def _fault(self, step: Step, row: int, message: str) -> None:
        self.faults.append(f"search {step.search}, simulation {step.simulations[row]}, env {step.envs[row]}: {message}")


def _digest(token: np.ndarray) -> int:
    return xxhash.xxh64_intdigest(np.ascontiguousarray(token).data)
