"""Checking what a backend returns: every context of a replay, token by token, against what it should hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import torch
import xxhash

from kvbench.replay.content import NO_CONTEXT, Contents, extend_context, generated_context
from kvbench.trace.steps import Step
from kvcache import EMPTY, MISS, CacheBackend, KeysValues, Scope

__all__ = ["CheckedContent", "Outcome", "Outcomes"]

_Token = tuple[int, int]  # (context in which it was appended, its index among the tokens appended then)


class Outcome(Enum):
    """What a lookup came to (SPEC 4)."""

    HIT = "hit"  # the context that the search meant
    MISS = "miss"
    STALE_HIT = "stale hit"  # another key's context
    CONTEXT_MISMATCH = "context mismatch"  # the right key's, with another history than the search meant
    WRONG_CONTENT = "wrong content"  # nothing that was ever stored: damaged


@dataclass
class Outcomes:
    """Outcomes of the lookups of one replay.

    Attributes:
        root: of initial inferences.
        node: of recurrent inferences.
        by_lookup: in the order of the trace, one per lookup.
        disagreements: lookups whose hit or miss differs from what the recorded run saw.
        recorded: lookups for which the trace says what the recorded run saw.
    """

    root: Counter[Outcome] = field(default_factory=Counter)
    node: Counter[Outcome] = field(default_factory=Counter)
    by_lookup: list[Outcome] = field(default_factory=list)
    disagreements: int = 0
    recorded: int = 0

    @property
    def total(self) -> Counter[Outcome]:
        return self.root + self.node

    def add(self, scope: Scope, outcome: Outcome, recorded_hit: bool | None) -> None:
        (self.root if scope is Scope.ROOT else self.node)[outcome] += 1
        self.by_lookup.append(outcome)
        if recorded_hit is not None:
            self.recorded += 1
            # To the recorded run, as to a pool, whatever was found is a hit.
            self.disagreements += recorded_hit != (outcome is not Outcome.MISS)


class CheckedContent:
    """The model's part of a replay whose contents are looked at.

    Every token appended has contents of its own, which depend on the key and on the whole history; every row of every
    assembled batch is compared with them, padding included. After a batch is stored its memory is poisoned, so that
    an entry which shares memory with the batch is found out. What is not found must be gone for a reason: a key that
    was never stored, a clear, or a pool that evicts and says so in its counters.

    Args:
        backend: to be checked.
        contents: of the trace's geometry.
    """

    def __init__(self, backend: CacheBackend, contents: Contents) -> None:
        self.outcomes = Outcomes()
        self.faults: list[str] = []
        self._contents = contents
        self._geometry = backend.config.geometry
        self._device, self._dtype = backend.config.device, backend.config.dtype
        self._meant: dict[int, int] = {}  # row of a store event -> the context that the recorded search had there
        self._tokens: dict[int, list[_Token]] = {NO_CONTEXT: []}  # context -> its live tokens
        self._keys: dict[int, int] = {}  # context -> the key it belongs to
        self._by_last_token: dict[int, int] = {}  # digest of a context's last token -> the context
        self._rows: list[int | None] = []  # context of each row of the batch, None where it is damaged
        self._supplied: list[KeysValues] = []
        self._stored_init: list[set[int]] = [set() for _ in range(self._geometry.env_num)]  # keys since the last clear
        self._stored_recur: set[int] = set()

    def generate(self, step: Step, row: int) -> KeysValues:
        key = step.parents[row]
        assert key is not None
        context = generated_context(key)
        self._define(context, key, [(context, 0)])
        geometry = self._geometry
        keys_values = KeysValues(
            1, geometry.num_heads, geometry.context_length, geometry.embed_dim, geometry.num_layers,
            self._device, self._dtype,
        )  # fmt: skip
        keys_values.block[0, ..., :1, :] = self._tensor(self._contents.sequence([(context, 0)]))
        keys_values.size = 1
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
            if report == MISS and self._must_hold(backend, step, row):
                key = step.parents[row]
                self._fault(step, row, f"nothing found under key {key:#018x}, which was stored and never evicted")
            self._judge(step, row, report, context)

    def append(self, batch: KeysValues, step: Step) -> None:
        tokens = []
        for row, key in enumerate(step.keys):
            before = self._rows[row]
            context = extend_context(NO_CONTEXT if before is None else before, key)
            size = 0 if before is None else len(self._tokens[before])
            appended = [(context, index) for index in range(step.tokens)]
            tokens.append(self._tensor(self._contents.sequence(appended, first=size)))
            if before is not None:
                first, count = self._geometry.window(size + step.tokens)
                self._define(context, key, (self._tokens[before] + appended)[first : first + count])
        block = torch.stack(tokens)
        for number, layer in enumerate(batch):
            layer.update(block[:, number, 0], block[:, number, 1])

    def stored(self, backend: CacheBackend, step: Step) -> None:
        for row, store in enumerate(step.stores):
            node, parent = step.nodes[row], step.parents[row]
            if parent is None:
                before = NO_CONTEXT
            else:
                # Where the recorded run missed, its history went on from what its model generated.
                before = (
                    generated_context(parent) if node is None or step.recorded_hits[row] is False else self._meant[node]
                )
            self._meant[store] = extend_context(before, step.keys[row])
        if self._geometry.keeps_past:
            for env, key in zip(step.envs, step.keys, strict=True):
                (self._stored_init[env] if step.scope is Scope.ROOT else self._stored_recur).add(key)
        for keys_values in (backend.keys_values_wm, *self._supplied):
            for tensor in keys_values.layer_tensors():
                tensor.fill_(torch.nan)
        self._supplied.clear()

    def cleared(self, scopes: Iterable[str]) -> None:
        """Those pools are cleared: ``recur``, ``init``, ``all``."""
        for scope in scopes:
            if scope in ("init", "all"):
                for keys in self._stored_init:
                    keys.clear()
            if scope in ("recur", "all"):
                self._stored_recur.clear()

    def _must_hold(self, backend: CacheBackend, step: Step, row: int) -> bool:
        """Whether a pool that the lookup goes through has taken the key since it was cleared, and never evicted."""
        if not backend.stats_enabled:  # evictions are not counted: any pool may have lost anything
            return False
        env, key = step.envs[row], step.parents[row]
        if key in self._stored_init[env] and not backend.init_pools[env].stats.evictions:
            return True
        return step.scope is Scope.NODE and key in self._stored_recur and not backend.recur_pool.stats.evictions

    def _define(self, context: int, key: int, tokens: list[_Token]) -> None:
        self._tokens[context] = tokens
        self._keys[context] = key
        if tokens:
            last = self._contents.token(*tokens[-1])
            self._by_last_token[xxhash.xxh64_intdigest(np.ascontiguousarray(last).data)] = context

    def _recognise(self, live: np.ndarray) -> int | None:
        """The context that ``live`` ``[L, 2, H, n, D]`` is, or None when it is none that was ever stored."""
        size = live.shape[3]
        if size == 0:
            return NO_CONTEXT
        if not np.isfinite(live).all():
            return None
        last = live[..., -1, :] - self._contents.positions[size - 1]
        context = self._by_last_token.get(xxhash.xxh64_intdigest(np.ascontiguousarray(last.astype(np.int8)).data))
        if context is None or len(self._tokens[context]) != size:
            return None
        wanted = np.moveaxis(self._contents.sequence(self._tokens[context]), 0, 3)
        return context if np.array_equal(wanted, live) else None

    def _judge(self, step: Step, row: int, report: int, context: int | None) -> None:
        key, node = step.parents[row], step.nodes[row]
        if key is None:
            if context != NO_CONTEXT:
                self._fault(step, row, "a row that starts from nothing is not empty")
            return
        if report == MISS:
            outcome = Outcome.MISS
            if context != generated_context(key):
                self._fault(step, row, "what was supplied after the miss did not arrive in the batch")
        elif report == EMPTY and self._geometry.slid_size == 0:
            outcome = Outcome.HIT  # at context_length 3 a slid window is empty: there is nothing to tell contexts by
        elif context is None or context == NO_CONTEXT:
            outcome = Outcome.WRONG_CONTENT
            self._fault(step, row, f"found under key {key:#018x}, but holds nothing that was ever stored")
        elif self._keys[context] != key:
            outcome = Outcome.STALE_HIT
        elif context != (generated_context(key) if node is None else self._meant[node]):
            outcome = Outcome.CONTEXT_MISMATCH
        else:
            outcome = Outcome.HIT
        self.outcomes.add(step.scope, outcome, step.recorded_hits[row])

    def _fault(self, step: Step, row: int, what: str) -> None:
        self.faults.append(f"search {step.search}, simulation {step.simulation}, env {step.envs[row]}: {what}")

    def _tensor(self, tokens: np.ndarray) -> torch.Tensor:
        """``[n, L, 2, H, D]`` integers as a tensor ``[L, 2, H, n, D]`` of the cache's device and dtype."""
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(tokens, 0, 3))).to(
            device=self._device, dtype=self._dtype
        )
