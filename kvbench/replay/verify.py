"""Checking a backend's contexts: all of a replay, token by token."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
import torch

from kvbench.replay.content import Contents, generated_context, latents_of
from kvbench.replay.contexts import UNKNOWN, KnownContexts, Rows, live_tensors
from kvbench.replay.deferred import JudgedLater, SetAside
from kvbench.replay.drive import Content
from kvbench.replay.hierarchy import INIT, RECUR, Hierarchy
from kvbench.replay.histories import EMPTY_CONTEXT
from kvbench.replay.outcomes import Outcome, Outcomes, RecordedContexts, judge
from kvbench.replay.timeline import Timeline
from kvbench.trace.steps import Step
from kvcache import EMPTY, MISS, CacheBackend, KeysValues, KVCachePool, LegacyCache, LegacyPool, Scope, hash_state

__all__ = ["CheckedContent"]

_NOT_STORED = "the context found under key {:#018x} was never stored"
_NOT_EMPTY = "a row that starts empty is not empty"
_NOT_SUPPLIED = "the context supplied after the miss is not in the batch"
_LOST = "nothing found under key {:#018x}, which was stored and never evicted"
_TOO_OLD = "found key {:#018x}, which was not stored since its pool was cleared"
_STALE = "stale hit: under key {:#018x} the context of key {:#018x} was found"
_OUTDATED = "under key {:#018x} a context was found that is not the one stored last"


class CheckedContent(Content):
    """The model's part of a replay whose contents are checked.

    Every appended token has its own content, so every context has. Every row of every assembled batch is compared with
    it, padding included: copies of some batches are kept, and compared at once. After a batch is stored, its memory is
    filled with NaN: so an entry that shares memory with the batch is found. A miss needs a reason: the key was never
    stored, the pool was cleared, or its counters say that it evicted. Nothing is found under a key that was not stored
    since its pool was cleared. What is found is what was stored last. The legacy code breaks this rule: its stale hits
    and outdated contexts are outcomes. Any other backend's are faults.

    Args:
        backend: the cache.
        contents: of its geometry.
        timeline: where outcomes are counted too.
        reach: as ``RecordedContexts`` has it.
    """

    def __init__(
        self, backend: CacheBackend, contents: Contents, timeline: Timeline | None = None, reach: int | None = None
    ) -> None:
        self._outcomes, self._faults, self._timeline = Outcomes(), list[str](), timeline
        self._geometry = backend.config.geometry
        self._recorded = RecordedContexts(reach)
        self._known = KnownContexts(contents, backend.config)
        self._later = SetAside(self._known)
        self._supplied: list[KeysValues] = []
        self._stored: Hierarchy[set[int]] = Hierarchy(lambda kind: set())  # keys since the last clear
        # Of the steps that are judged: the number of the context stored last, by its key.
        self._last: Hierarchy[dict[int, int]] = Hierarchy(lambda kind: {})
        self._backend, self._is_legacy = backend, isinstance(backend, LegacyCache)
        # Contexts in the slots of legacy pools, whether or not a key still leads to them.
        slots = {INIT: backend.config.init_entries, RECUR: backend.config.recur_entries}
        self._circles: Hierarchy[deque[int]] = Hierarchy(lambda kind: deque(maxlen=slots[kind]))

    @property
    def outcomes(self) -> Outcomes:
        """Of all lookups."""
        self._judge()
        return self._outcomes

    @property
    def faults(self) -> list[str]:
        """What is wrong with the backend, each with its place."""
        self._judge()
        return self._faults

    def generate(self, step: Step, row: int) -> KeysValues:
        key = step.parents[row]
        assert key is not None
        padding = (0, 0, 0, self._geometry.context_length - 1)
        block = torch.nn.functional.pad(self._known.generate(key), padding)
        keys_values = KeysValues.from_block(block[None], size=1)
        self._supplied.append(keys_values)
        return keys_values

    def assembled(self, backend: CacheBackend, step: Step, found: list[int]) -> None:
        if self._later.is_full:
            self._judge()
        sizes = np.array(backend.keys_values_wm_size_list)
        starts = np.array([backend.row_start(row) for row in range(len(sizes))])
        tensors = live_tensors(backend.keys_values_wm, int(sizes.max()))
        later = JudgedLater(step, list(found), Rows(tensors, starts, sizes))
        for row, (key, report) in enumerate(zip(step.parents, found, strict=True)):
            if report == MISS:
                if self._must_hold(backend, step, row):
                    later.faults[row] = _LOST.format(key)
            elif key is not None and not self._is_stored(step, row):
                later.faults[row] = _TOO_OLD.format(key)
        self._later.add(later)

    def append(self, batch: KeysValues, step: Step) -> None:
        later = self._later.steps[-1]
        later.appended, tensors = self._known.append(later.batch.sizes, step.tokens)
        for layer, keys, values in zip(batch, tensors[::2], tensors[1::2], strict=True):
            layer.update(keys, values)

    def stored(self, backend: CacheBackend, step: Step) -> None:
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
        asked = self._stored.asked(step.envs[row], step.scope)
        kinds = [kind for kind, stored in asked if step.parents[row] in stored]
        # Where evictions are not counted any pool may have lost anything.
        return backend.stats_enabled and any(not pools[kind].stats.evictions for kind in kinds)

    def _is_stored(self, step: Step, row: int) -> bool:
        """Whether one of the lookup's pools stored its key since it was cleared."""
        key = step.parents[row]
        for _, stored in self._stored.asked(step.envs[row], step.scope):  # noqa: SIM110 - twice as fast as a generator
            if key in stored:
                return True
        return False

    def _judge(self) -> None:
        """Judge all lookups that were set aside, in their order."""
        if not self._later.steps:
            return
        steps, contexts, grown = self._later.take()
        keys, identities = self._known.histories.entries(np.maximum(contexts, EMPTY_CONTEXT))
        rows = zip(contexts.tolist(), keys.tolist(), identities.tolist(), strict=True)
        new_contexts = iter(grown.tolist())
        for later in steps:
            step = later.step
            outcomes = list(self._outcomes_of(later, rows))
            self._follow(step, list(islice(new_contexts, len(step.envs))))
            hits = [hit for hit, key in zip(step.recorded_hits, step.parents, strict=True) if key is not None]
            self._outcomes.extend(step.scope, outcomes, hits)
            if self._timeline is not None:
                self._timeline.count(step, outcomes)
            self._recorded.store(step)
        if self._known.histories.are_many:
            self._forget()

    def _forget(self) -> None:
        """Forget what no pool holds: keys that were evicted, and contexts that nothing leads to."""
        for env, pool in enumerate(self._backend.init_pools):
            if not isinstance(pool, (KVCachePool, LegacyPool)):
                continue
            held = pool.index if isinstance(pool, LegacyPool) else pool
            stored, last = self._stored.written(env, Scope.ROOT), self._last.written(env, Scope.ROOT)
            if pool.stats.evictions or not self._backend.stats_enabled:
                latents = latents_of(list(stored), self._geometry.embed_dim)
                evicted = [key for key, each in zip(stored, latents, strict=True) if hash_state(each) not in held]
                stored.difference_update(evicted)
                for key in evicted:
                    last.pop(key, None)
        contexts = (each.values() for each in self._last.cleared("all"))
        self._known.histories.keep(chain(*contexts, *self._circles.cleared("all")))

    def _outcomes_of(self, later: JudgedLater, rows: Iterator[tuple[int, int, int]]) -> Iterator[Outcome]:
        """Outcomes of a step's lookups; ``rows`` are the context, its key and its identity of each row."""
        step = later.step
        for row, (key, report) in enumerate(zip(step.parents, later.found, strict=True)):
            context, *entry = next(rows)
            if row in later.faults:
                self._fault(step, row, later.faults[row])
            if key is None:
                if context != EMPTY_CONTEXT:
                    self._fault(step, row, _NOT_EMPTY)
                continue
            if report == MISS:
                if context == UNKNOWN or entry != [key, generated_context(key)]:
                    self._fault(step, row, _NOT_SUPPLIED)
                yield Outcome.MISS
            elif report == EMPTY and context == EMPTY_CONTEXT and self._geometry.slid_size == 0:
                yield Outcome.HIT  # at context_length 3 a slid window is empty: all contexts are alike
            elif context in (UNKNOWN, EMPTY_CONTEXT):
                self._fault(step, row, _NOT_STORED.format(key))
                yield Outcome.WRONG_CONTENT
            else:
                if not self._is_legacy and row not in later.faults:
                    self._check_last(step, row, context, entry[0])
                yield judge((key, self._recorded.wanted(step, row)), (entry[0], entry[1]))

    def _follow(self, step: Step, new_contexts: list[int]) -> None:
        """Note what a judged step stored and cleared."""
        if step.keys and self._geometry.keeps_past:
            for env, key, context in zip(step.envs, step.keys, new_contexts, strict=True):
                self._last.written(env, step.scope)[key] = context
                if self._is_legacy:
                    self._circles.written(env, step.scope).append(context)
        for last in self._last.cleared_by(step):
            last.clear()

    def _check_last(self, step: Step, row: int, context: int, owner: int) -> None:
        """A fault unless one of the lookup's pools stored this very context last under the row's key."""
        key = step.parents[row]
        assert key is not None
        if all(last.get(key) != context for _, last in self._last.asked(step.envs[row], step.scope)):
            self._fault(step, row, _OUTDATED.format(key) if owner == key else _STALE.format(key, owner))

    def _fault(self, step: Step, row: int, message: str) -> None:
        place = f"search {step.search}, simulation {step.simulations[row]}, env {step.envs[row]}"
        self._faults.append(f"{place}: {message}")
