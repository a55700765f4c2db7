"""Upper bounds for every pool: the lookups that unlimited pools answer, and Belady's bound at a given size."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kvbench.replay.hierarchy import Hierarchy
from kvbench.trace.steps import Step
from kvcache import Scope

__all__ = ["Belady", "Future", "Room", "Unlimited"]

Span = tuple[int, int]  # from a request that leaves an entry in the pool to the lookup that it answers


class Room:
    """Room for ``capacity`` spans at a time: of those that come, in the order of their ends, as many as there can be.

    A place is one entry's at a time. A span goes into the place that was left last before it begins; where no place
    was left it is dropped. No other choice keeps more (Faigle and Nawijn 1995, "Note on scheduling intervals on-line").
    """

    __slots__ = ("_capacity", "_ends")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ends: list[int] = []  # of the last span in each place that had one; ascending

    def keep(self, start: int, end: int) -> bool:
        """Whether the span is kept."""
        before = bisect_right(self._ends, start)
        if before:
            del self._ends[before - 1]
        elif len(self._ends) == self._capacity:
            return False
        self._ends.append(end)
        return True


@dataclass
class _Pool:
    """Requests of one unlimited pool."""

    since: dict[int, int] = field(default_factory=dict)  # when each key's entry was last needed or stored
    most: int = 0  # entries that it ever held at once
    spans: list[Span] = field(default_factory=list)  # of ``Future``, in the order of their ends
    rooms: list[Room] = field(default_factory=list)  # of ``Belady``


class Unlimited:
    """Pools that never evict, step by step.

    Args:
        pool: the kind whose size varies in the bounds that follow from it, ``"init"`` or ``"recur"``.

    Attributes:
        lookups: by their scope; rows that begin empty make none.
        found: of these, the lookups that unlimited pools answer.
        most_entries: of one pool of the kind at a time: with that many slots nothing is ever evicted.
    """

    def __init__(self, pool: str) -> None:
        self._kind = pool
        self._pools: list[_Pool] = []  # of the kind
        self._hierarchy = Hierarchy(self._make)
        self._now = 0
        self.lookups, self.found = dict.fromkeys(Scope, 0), dict.fromkeys(Scope, 0)

    def follow(self, step: Step) -> None:
        """Make the requests of the next step."""
        for env, key in zip(step.envs, step.parents, strict=True):
            if key is not None:
                self._lookup(step.scope, env, key)
            self._now += 1
        for env, key in zip(step.envs, step.keys, strict=False):
            written = self._hierarchy.written(env, step.scope)
            written.since[key] = self._now
            written.most = max(written.most, len(written.since))
            self._now += 1
        for cleared in self._hierarchy.cleared_by(step):
            cleared.since.clear()

    @property
    def most_entries(self) -> int:
        """As above."""
        return max((each.most for each in self._pools), default=0)

    def _make(self, kind: str) -> _Pool:
        pool = _Pool()
        if kind == self._kind:
            self._pools.append(pool)
        return pool

    def _lookup(self, scope: Scope, env: int, key: int) -> None:
        self.lookups[scope] += 1
        answering = [(kind, pool) for kind, pool in self._hierarchy.asked(env, scope) if key in pool.since]
        if not answering:
            return
        self.found[scope] += 1
        if [kind for kind, _ in answering] == [self._kind]:
            ((_, pool),) = answering
            self._answer(pool, scope, pool.since[key])
            pool.since[key] = self._now
        else:
            self._answer_elsewhere(scope)

    def _answer(self, pool: _Pool, scope: Scope, since: int) -> None:
        """One pool of the kind answers, if it kept the entry ``since`` that time."""

    def _answer_elsewhere(self, scope: Scope) -> None:
        """The other kind of pool answers, however large this kind is."""


class Belady(Unlimited):
    """Lookups that can be answered when each pool of the kind holds at most so many entries at a time.

    No policy finds more. Whenever there is one entry too many, the entry whose next lookup is the latest is evicted,
    even if it is the newest (Belady). After a failed lookup its entry counts as stored again.

    Args:
        pool: as in ``Unlimited``.
        capacities: entries of one pool.

    Attributes:
        kept: lookups that are answered at each capacity, by their scope.
    """

    def __init__(self, pool: str, capacities: Sequence[int]) -> None:
        self._capacities = capacities
        self.kept = {scope: [0] * len(capacities) for scope in Scope}
        super().__init__(pool)

    def _make(self, kind: str) -> _Pool:
        pool = super()._make(kind)
        pool.rooms = [Room(capacity) for capacity in self._capacities]
        return pool

    def _answer(self, pool: _Pool, scope: Scope, since: int) -> None:
        kept = self.kept[scope]
        for number, room in enumerate(pool.rooms):
            kept[number] += room.keep(since, self._now)

    def _answer_elsewhere(self, scope: Scope) -> None:
        kept = self.kept[scope]
        for number in range(len(kept)):
            kept[number] += 1


class Future:
    """All requests of a trace, known in advance: Belady's bound at any size that is asked for later.

    Args:
        steps: of the trace.
        pool: the kind whose size varies, ``"init"`` or ``"recur"``; the other is unlimited.

    Attributes:
        lookups, found: as in ``Unlimited``, of both scopes.
        most_entries: as in ``Unlimited``.
    """

    def __init__(self, steps: Iterable[Step], pool: str) -> None:
        pools = _Remembered(pool)
        for step in steps:
            pools.follow(step)
        self._spans, self._elsewhere = [each.spans for each in pools.all_pools], pools.elsewhere
        self.lookups, self.found = sum(pools.lookups.values()), sum(pools.found.values())
        self.most_entries = pools.most_entries

    def found_by_belady(self, capacity: int) -> int:
        """Lookups that ``Belady`` answers with that many entries."""
        rooms = [(Room(capacity), spans) for spans in self._spans]
        return self._elsewhere + sum(room.keep(*span) for room, spans in rooms for span in spans)


class _Remembered(Unlimited):
    """Unlimited pools that keep every span."""

    elsewhere = 0

    @property
    def all_pools(self) -> Sequence[_Pool]:
        return self._pools

    def _answer(self, pool: _Pool, scope: Scope, since: int) -> None:
        pool.spans.append((since, self._now))

    def _answer_elsewhere(self, scope: Scope) -> None:
        self.elsewhere += 1
