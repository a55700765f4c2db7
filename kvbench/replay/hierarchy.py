"""The rule of init-then-recur: which pools a lookup asks, a store writes and a clear empties."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Generic, TypeVar

from kvbench.trace.steps import Step
from kvcache import Scope

__all__ = ["INIT", "RECUR", "Hierarchy"]

T = TypeVar("T")

INIT, RECUR = "init", "recur"


class Hierarchy(Generic[T]):
    """One object for each pool of a cache: an init pool for each environment, and one recurrent pool.

    ``make`` makes the object of a pool of the kind ``"init"`` or ``"recur"``, when it is first needed.
    """

    def __init__(self, make: Callable[[str], T]) -> None:
        self._init: defaultdict[int, T] = defaultdict(lambda: make(INIT))
        self._recur = make(RECUR)

    def asked(self, env: int, scope: Scope) -> list[tuple[str, T]]:
        """Kinds and objects of the pools that a lookup asks, in order."""
        init = (INIT, self._init[env])
        return [init] if scope is Scope.ROOT else [init, (RECUR, self._recur)]

    def written(self, env: int, scope: Scope) -> T:
        """The object of the pool that a store writes."""
        return self._init[env] if scope is Scope.ROOT else self._recur

    def cleared(self, scope: str) -> list[T]:
        """The objects of the pools that a clear empties: ``init``, ``recur`` or ``all``."""
        init = [] if scope == RECUR else list(self._init.values())
        return init if scope == INIT else [*init, self._recur]

    def cleared_by(self, step: Step) -> list[T]:
        """The objects of all pools that are emptied after a step; one may stand there twice."""
        whole = [pool for scope in step.clears for pool in self.cleared(scope)]
        return [*whole, *(self._init[env] for env in step.cleared_envs)]
