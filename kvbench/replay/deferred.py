"""Steps of a checked replay that are judged later: their batches are set aside, and compared many at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from kvbench.replay.contexts import UNKNOWN, KnownContexts, Rows
from kvbench.replay.histories import EMPTY_CONTEXT
from kvbench.trace.steps import Step

__all__ = ["JudgedLater", "SetAside"]

_MOST_BYTES = 2**22  # of batches: what a processor's caches may hold
_MOST_ROWS = 1024


@dataclass(slots=True)
class JudgedLater:
    """What a lookup found.

    Attributes:
        step: the step.
        found: what the lookup reported of each row.
        batch: that was assembled.
        appended: numbers of the tokens that each row got, ``[B, n]``.
        faults: by row, what is wrong however the row is judged.
    """

    step: Step
    found: Sequence[int]
    batch: Rows
    appended: np.ndarray = field(default_factory=lambda: np.zeros((0, 1), dtype=np.int64))
    faults: dict[int, str] = field(default_factory=dict)


class SetAside:
    """Copies of batches, and the lookups that they are of."""

    def __init__(self, known: KnownContexts) -> None:
        self.steps: list[JudgedLater] = []
        self._known = known
        self._bytes = self._rows = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to judge."""
        return self._bytes >= _MOST_BYTES or self._rows >= _MOST_ROWS

    def add(self, step: JudgedLater) -> None:
        """Set a step aside."""
        self._bytes += step.batch.tensors.nbytes
        self._rows += len(step.batch.sizes)
        self.steps.append(step)

    def take(self) -> tuple[list[JudgedLater], np.ndarray, np.ndarray]:
        """All steps; the context that each row is, UNKNOWN where it is none that was ever made; and what it became.

        Where nothing was appended to a row it became ``EMPTY_CONTEXT``.
        """
        steps, self.steps = self.steps, []
        sizes = np.concatenate([each.batch.sizes for each in steps])
        tokens, sound = self._read(steps)
        sizes = np.where(sound, sizes, 0)
        grown = self._grow(steps, tokens, sizes)
        contexts = np.where(sound, self._known.named(tokens, sizes), UNKNOWN)
        if UNKNOWN in contexts:
            self._spread(contexts, grown)
        parents = np.maximum(contexts, EMPTY_CONTEXT)[grown != EMPTY_CONTEXT]
        self._known.histories.trace(parents.tolist())
        self._bytes = self._rows = 0
        return steps, contexts, grown

    def _read(self, steps: Sequence[JudgedLater]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of all rows, and whether there is nothing else; rows of one width at once."""
        firsts = np.cumsum([0, *(len(each.batch.sizes) for each in steps)]).tolist()
        by_width: defaultdict[int, list[int]] = defaultdict(list)
        for number, each in enumerate(steps):
            by_width[each.batch.tensors.shape[3]].append(number)
        order, parts = [], []
        for numbers in by_width.values():
            batches = [steps[number].batch for number in numbers]
            tensors = np.concatenate([each.tensors for each in batches], axis=1)
            starts, sizes = (np.concatenate([getattr(each, name) for each in batches]) for name in ("starts", "sizes"))
            parts.append(self._known.read(Rows(tensors, starts, sizes)))
            order += [np.arange(firsts[number], firsts[number + 1]) for number in numbers]
        places = np.argsort(np.concatenate(order))
        tokens, sound = (np.concatenate(each)[places] for each in zip(*parts, strict=True))
        return tokens, sound

    def _grow(self, steps: Sequence[JudgedLater], tokens: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """What each row became by the tokens appended to it; EMPTY_CONTEXT where nothing was."""
        most = max(each.appended.shape[1] for each in steps)
        appended, first = np.zeros((len(tokens), most), dtype=np.int64), 0
        for each in steps:
            rows, count = each.appended.shape
            appended[first : first + rows, :count] = each.appended
            first += len(each.batch.sizes)
        rows = np.flatnonzero(appended[:, 0])
        keys = [key for each in steps for key in each.step.keys]
        grown = np.zeros(len(tokens), dtype=np.int64)
        grown[rows] = self._known.histories.add(keys, tokens[rows], sizes[rows], appended[rows])
        return grown

    def _spread(self, contexts: np.ndarray, grown: np.ndarray) -> None:
        """What grew out of a damaged row is none of the contexts that were made."""
        lost: set[int] = set()
        for row, (context, new) in enumerate(zip(contexts.tolist(), grown.tolist(), strict=True)):
            if context == UNKNOWN or context in lost:
                contexts[row] = UNKNOWN
                lost.add(new)
        self._known.histories.forget(np.array(sorted(lost - {EMPTY_CONTEXT}), dtype=np.int64))
