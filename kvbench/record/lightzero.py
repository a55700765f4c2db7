"""LightZero 0.2.0: recording the requests of a run to its world model's caches.

``LightZeroRecorder`` observes an unmodified ``WorldModel`` from outside. Nothing of LightZero is imported before it is
needed. All assumptions come from LightZero 0.2.0, ``unizero_world_models/world_model.py`` and
``mcts/tree_search/mcts_ctree.py``.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from kvbench.errors import KvbenchError
from kvbench.record.lightzero_config import LIGHTZERO_VERSION
from kvbench.record.lightzero_events import Batch, BatchWriter
from kvbench.trace.schema import NO_ENV
from kvbench.trace.writer import TraceWriter
from kvcache import Geometry

__all__ = ["LightZeroRecorder", "RecordingError", "geometry_of"]

_RECUR = NO_ENV  # the recurrent cache among the observed dicts; the init caches go by their environment
_OBSERVED_METHODS = (
    "forward_initial_inference",
    "wm_forward_for_initial_infererence",
    "forward_recurrent_inference",
    "retrieve_or_generate_kvcache",
    "trim_and_pad_kv_cache",
    "update_cache_context",
)
_OBSERVED_ATTRIBUTES = ("past_kv_cache_init_infer_envs", "past_kv_cache_recurrent_infer", "env_num", "context_length")


class RecordingError(KvbenchError):
    """A recording that cannot be made, or that a trace cannot express."""


class ObservedDict(defaultdict[str, Any]):
    """A key dictionary that reports lookups, stores and clears, and is otherwise the same."""

    def __init__(self, original: defaultdict[str, Any], observer: LightZeroRecorder, env: int) -> None:
        super().__init__(original.default_factory, original)
        self._observer = observer
        self._env = env

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key, default)
        self._observer.looked_up(self._env, key, found is not None)
        return found

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._observer.stored(self._env, key)

    def clear(self) -> None:
        super().clear()
        self._observer.cleared(self._env)


class LightZeroRecorder:
    """Records a world model's cache requests while the block runs; the run's results do not change.

    The key dictionaries and the inference methods are replaced on the instance, ``batch_traverse`` in its module, and
    everything is put back at the end, also when the run raises. The model must not be copied meanwhile. The writer
    stays the caller's to close.

    A trace begins with empty caches. If they are not empty at the start, recording begins at the first search that
    finds them all empty. Left out, as no search of an environment: initial inferences for training targets (no
    current observation, or more rows than environments; the clearing of the recurrent cache after them is recorded)
    and recurrent inferences of the reanalyze phase, which look nothing up.

    Args:
        world_model: a LightZero 0.2.0 ``WorldModel``, as built.
        writer: of a trace with this model's geometry (``geometry_of``).
        searches: record so many searches, then no more; None records to the end of the block.
        tree: the module whose ``batch_traverse`` the search calls; by default the one of LightZero's MCTS.
        on_search: called before every search with the number of searches recorded so far; what it raises ends the run.

    Raises:
        RecordingError: the object lacks what a LightZero 0.2.0 world model has, or is being observed already.
        ValueError: ``searches`` is not positive.
    """

    def __init__(
        self,
        world_model: Any,
        writer: TraceWriter,
        *,
        searches: int | None = None,
        tree: Any = None,
        on_search: Callable[[int], None] = lambda recorded: None,
    ) -> None:
        if searches is not None and searches < 1:
            raise ValueError(f"searches must be positive, got {searches!r}")
        missing = [name for name in (*_OBSERVED_METHODS, *_OBSERVED_ATTRIBUTES) if not hasattr(world_model, name)]
        if missing:
            fault = f"is no world model of LightZero {LIGHTZERO_VERSION}: it lacks {', '.join(missing)}"
            raise RecordingError(f"{type(world_model).__name__} {fault}")
        if not isinstance(world_model.past_kv_cache_recurrent_infer, dict):
            raise RecordingError(
                "this world model has kvcache's cache, and LightZero's own is what is recorded: set "
                "use_new_cache_manager=False for the recording"
            )
        self.searches = 0  # recorded so far, the current one included
        self.finished = False  # the limit was reached, and the next search has begun
        self._world_model = world_model
        self._batches = BatchWriter(writer)
        self._limit = searches
        self._tree = tree
        self._on_search = on_search
        self._started = False
        self._fault: str | None = None
        self._batch: Batch | None = None
        self._cleared_outside: set[int] = set()
        self._traversed: list[tuple[int, int]] | None = None  # as in ``Batch``, from the last traversal

    def __enter__(self) -> LightZeroRecorder:
        model = self._world_model
        if isinstance(model.past_kv_cache_recurrent_infer, ObservedDict):
            raise RecordingError("the world model is being observed by another recorder")
        if self._tree is None:
            self._tree = importlib.import_module("lzero.mcts.tree_search.mcts_ctree").tree_muzero
        self._original_traverse = self._tree.batch_traverse
        self._original_init = list(model.past_kv_cache_init_infer_envs)
        self._original_recur = model.past_kv_cache_recurrent_infer
        model.past_kv_cache_init_infer_envs[:] = [
            ObservedDict(original, self, env) for env, original in enumerate(self._original_init)
        ]
        model.past_kv_cache_recurrent_infer = ObservedDict(self._original_recur, self, _RECUR)
        for name in _OBSERVED_METHODS:
            setattr(model, name, partial(getattr(self, f"_{name}"), getattr(model, name)))
        self._tree.batch_traverse = self._batch_traverse
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        self._write_outside_clears()
        if self._fault and kind is None:
            raise RecordingError(self._fault)

    def _restore(self) -> None:
        model = self._world_model
        self._tree.batch_traverse = self._original_traverse
        for name in _OBSERVED_METHODS:
            delattr(model, name)
        observed = [*model.past_kv_cache_init_infer_envs, model.past_kv_cache_recurrent_infer]
        for original, now in zip([*self._original_init, self._original_recur], observed, strict=True):
            original.clear()
            original.update(now)
        model.past_kv_cache_init_infer_envs[:] = self._original_init
        model.past_kv_cache_recurrent_infer = self._original_recur

    # Replacements of the world model's methods, each with the original as its first argument.

    def _forward_initial_inference(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._inference(Batch(root=True, observed=False)):
            return original(*args, **kwargs)

    def _wm_forward_for_initial_infererence(
        self,
        original: Callable[..., Any],
        last_obs_embeddings: Any,
        batch_action: Any = None,
        current_obs_embeddings: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        searches = len(last_obs_embeddings) <= self._world_model.env_num and current_obs_embeddings is not None
        if self._batch is not None and searches:
            self._batch.observed = self._begin_search()
        return original(last_obs_embeddings, batch_action, current_obs_embeddings, *args, **kwargs)

    def _forward_recurrent_inference(
        self,
        original: Callable[..., Any],
        state_action_history: Any,
        simulation_index: int = 0,
        search_depth: Any = (),
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        reanalyzes = getattr(self._world_model, "reanalyze_phase", False)
        observed = self._recording and not reanalyzes
        with self._inference(Batch(False, observed, depths=list(search_depth), traversed=self._traversed)):
            return original(state_action_history, simulation_index, search_depth, *args, **kwargs)

    def _retrieve_or_generate_kvcache(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._batch is not None and self._batch.observed and self._batch.traversed is None:
            self._give_up("a recurrent inference without batch_traverse: its nodes are unknown")
        return original(*args, **kwargs)

    def _trim_and_pad_kv_cache(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._batch is not None:
            self._batch.sizes = [int(size) for size in self._world_model.keys_values_wm_size_list]
        return original(*args, **kwargs)

    def _update_cache_context(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._batch is not None:
            before = max(self._batch.sizes or [0])
            self._batch.tokens = int(self._world_model.keys_values_wm.size) - before
        return original(*args, **kwargs)

    def _batch_traverse(self, *args: Any, **kwargs: Any) -> Any:
        found = self._original_traverse(*args, **kwargs)
        self._traversed = list(zip(found[0], found[1], strict=True))
        return found

    # Calls of the key dictionaries.

    def looked_up(self, env: int, key: str, hit: bool) -> None:
        batch = self._batch
        if batch is None or not batch.observed:
            return
        if env == _RECUR:  # asked after the environment's init cache missed, for the same row
            env = next(reversed(batch.lookups))
        batch.lookups[env] = (int(key, 16), hit)

    def stored(self, env: int, key: str) -> None:
        batch = self._batch
        if batch is None or not batch.observed:
            return
        if batch.cleared:
            self._give_up("the world model stores after it clears within one inference: a trace cannot express that")
        batch.stores[len(batch.stores) if env == _RECUR else env] = int(key, 16)

    def cleared(self, env: int) -> None:
        (self._cleared_outside if self._batch is None else self._batch.cleared).add(env)

    # From calls to events.

    @property
    def _recording(self) -> bool:
        return self._started and not self.finished and self._fault is None

    def _give_up(self, fault: str) -> None:
        # Not raised here: the run goes on undisturbed, and the error is raised at the end.
        self._fault = self._fault or fault
        if self._batch is not None:
            self._batch.observed = False

    def _begin_search(self) -> bool:
        """Whether the root inference that now begins is recorded."""
        model = self._world_model
        caches = (model.past_kv_cache_recurrent_infer, *model.past_kv_cache_init_infer_envs)
        self._started = self._started or not any(caches)
        self.finished = self.searches == self._limit
        self._on_search(self.searches)
        if not self._recording:
            return False
        self._batches.begin_search()
        self.searches += 1
        return True

    @contextmanager
    def _inference(self, batch: Batch) -> Iterator[None]:
        self._write_outside_clears()
        self._batch = batch
        try:
            yield
        finally:
            self._batch = None
            self._write(batch)
            self._traversed = None

    def _write_outside_clears(self) -> None:
        """Write one batch for all clears since the last inference: a reset clears the dicts one by one."""
        cleared, self._cleared_outside = self._cleared_outside, set()
        if cleared:
            self._write(Batch(root=True, observed=False, cleared=cleared))

    def _write(self, batch: Batch) -> None:
        if self._recording:
            self._batches.write(batch, self._clears(batch.cleared))

    def _clears(self, cleared: set[int]) -> list[tuple[str, int]]:
        """Scope and environment of each clear event: one for all init caches, if none is left with keys."""
        init = cleared - {_RECUR}
        recur = [("recur", NO_ENV)] if _RECUR in cleared else []
        caches = self._world_model.past_kv_cache_init_infer_envs
        if any(cache for env, cache in enumerate(caches) if env not in init):
            return [*(("init", env) for env in sorted(init)), *recur]
        if not init:
            return recur
        return [("all" if recur else "init", NO_ENV)]


def geometry_of(world_model: Any, name: str, num_simulations: int) -> Geometry:
    """The geometry of a LightZero world model that is searched with so many simulations."""
    config = world_model.config
    sizes = {each: getattr(config, each) for each in ("num_layers", "num_heads", "embed_dim")}
    sizes |= {each: getattr(world_model, each) for each in ("context_length", "env_num")}
    positions = "rotary" if config.rotary_emb else "absolute"
    return Geometry(name, num_simulations=num_simulations, positions=positions, **sizes)
