"""How a simulation's two passes run: operation by operation, compiled, or as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kvcache.geometry import TOKENS_PER_STEP
from kvcache.keys_values import KeysValues
from kvcache.world_model.attention import ReadOnlyContext, attend_beside
from kvcache.world_model.predictor import Predictor

__all__ = ["BACKEND", "CompileError", "CompiledStep", "CudaGraphs", "GraphedStep", "Step", "make_step"]

BACKEND = "inductor"
_TOKENS = 2  # the dimension of tokens in [B, H, T, D]
# torch compiles a dimension of 1 by itself. A context of one token is a search's in an episode's first step only.
_SHORTEST = 2


class CompileError(RuntimeError):
    """torch cannot compile here; the message says why."""


class Step:
    """Runs a simulation's two passes operation by operation.

    Args:
        model: whose networks run.
    """

    def __init__(self, model: Predictor) -> None:
        self._model = model

    def __call__(self, sent: Tensor, batch: KeysValues) -> Tensor:
        """Predictions of one simulation; ``batch`` is two tokens longer afterwards (see ``Predictor.simulate``)."""
        return self._model.simulate(sent, batch)

    def weights_changed(self) -> None:
        """The model's weights are others, or are elsewhere."""

    @property
    def counts(self) -> dict[str, int]:
        """What was made so far, by its name: ``compilations``, ``captures``."""
        return {}


class CompiledStep(Step):
    """Runs them compiled by ``torch.compile``: once for all lengths of contexts, and again for another number of rows.

    The compiled function writes to none of its arguments. It returns the new tokens, which are appended by ``update``.
    Weights are its arguments too: changed ones need no other compilation.

    Args:
        model: whose networks run.

    Attributes:
        compilations: graphs that were compiled.
    """

    def __init__(self, model: Predictor) -> None:
        super().__init__(model)
        self.compilations = 0
        self._compiled: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._model,)  # a copy compiles anew

    def __call__(self, sent: Tensor, batch: KeysValues) -> Tensor:
        if batch.size < _SHORTEST:
            return super().__call__(sent, batch)
        from torch._dynamo.exc import TorchDynamoException

        try:
            if self._compiled is None:
                self._compiled = torch.compile(self._function(), backend=self._compile, fullgraph=True)
            columns, new = self._compiled(sent, self._layers(batch))
        except TorchDynamoException as error:
            raise CompileError(_why(error)) from error
        for layer, (keys, values) in zip(batch, new, strict=True):
            layer.update(keys, values)
        predicted: Tensor = columns
        return predicted

    def _function(self) -> Any:
        """A function of this model alone: torch counts compilations by code object, for all functions that share it."""
        model = self._model

        def simulated(sent: Tensor, layers: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
            context = ReadOnlyContext(layers)
            return model.simulate(sent, context, attend_beside), context.new

        code = simulated.__code__.replace()
        return FunctionType(code, simulated.__globals__, code.co_name, None, simulated.__closure__)

    def _layers(self, batch: KeysValues) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer, whose length may differ from call to call."""
        layers = [layer.get() for layer in batch]
        for pair in layers:
            for each in pair:
                torch._dynamo.mark_dynamic(each, _TOKENS)
        return layers

    def _compile(self, graph: Any, inputs: Any) -> Any:
        from torch._dynamo import lookup_backend

        self.compilations += 1
        return lookup_backend(BACKEND)(graph, inputs)

    @property
    def counts(self) -> dict[str, int]:
        return {"compilations": self.compilations}


def _why(error: BaseException) -> str:
    """A line of the many that torch says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("backend=")]
    return f"compile=True: torch cannot compile here ({lines[0].rstrip('.:')}): mend that, or leave compile out"


class CudaGraphs:
    """Captures functions as CUDA graphs, which share memory: their results are read before the next one runs."""

    WARM_UPS = 2  # libraries allocate and choose at a first call

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._device,)

    def capture(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """What ``run`` does as a function that does it again, and the tensor that its result is written to.

        ``run`` is called several times, and must leave the same each time. Nothing of the last call was done yet.
        """
        # Not in inference mode: what a capture makes for its random numbers is written to in and out of it.
        with torch.cuda.device(self._device), torch.inference_mode(False), torch.no_grad():
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            stream, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                for _ in range(self.WARM_UPS):
                    run()
            current.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Another thread's calls, such as those of a data loader, are no part of it.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                result = run()
            return graph.replay, result


class _Captured(NamedTuple):
    sent: Tensor  # what it reads
    replay: Callable[[], None]
    columns: Tensor  # what it writes


class GraphedStep(Step):
    """Runs them as a CUDA graph: captured at the first simulation of a length and of a number of rows.

    The contexts are read from and appended to where the batch is, which keeps its place. Actions and positions are
    written into place.

    Args:
        model: whose networks run.
        step: what is captured.
        graphs: captures it.

    Attributes:
        captures: graphs that were captured.
    """

    def __init__(self, model: Predictor, step: Step, graphs: CudaGraphs) -> None:
        super().__init__(model)
        self.captures = 0
        self._inner, self._capturer = step, graphs
        self._weights = self._weights_places()
        self._batch_place = 0
        self._captured: dict[tuple[int, ...], _Captured] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._model, self._inner, self._capturer)  # a copy captures anew

    def __call__(self, sent: Tensor, batch: KeysValues) -> Tensor:
        if not batch.holds_block:  # somebody has put other tensors into it
            return self._inner(sent, batch)
        place = batch.layer_tensors()[0].data_ptr()
        if place != self._batch_place:
            self._captured.clear()
            self._batch_place = place
        shape = (*sent.shape, batch.size)
        found = self._captured.get(shape)
        if found is None:
            found = self._captured[shape] = self._capture(sent, batch)
            batch.resize(batch.size - TOKENS_PER_STEP)
        found.sent.copy_(sent)
        found.replay()
        batch.note_appended(TOKENS_PER_STEP)
        return found.columns

    def _capture(self, sent: Tensor, batch: KeysValues) -> _Captured:
        self.captures += 1
        with torch.inference_mode(False):
            kept, size = torch.empty_like(sent), batch.size
        kept.copy_(sent)

        def run() -> Tensor:
            batch.resize(size)
            return self._inner(kept, batch)

        return _Captured(kept, *self._capturer.capture(run))

    def _weights_places(self) -> list[int]:
        return [each.data_ptr() for each in (*self._model.parameters(), *self._model.buffers())]

    def weights_changed(self) -> None:
        """Forget what was captured, if the weights are elsewhere. Others in the same place are read by every replay."""
        places = self._weights_places()
        if places != self._weights:
            self._captured.clear()
            self._weights = places

    @property
    def counts(self) -> dict[str, int]:
        return {**self._inner.counts, "captures": self.captures}


def make_step(model: Predictor) -> Step:
    """The step that the model's configuration asks for."""
    config = model.config
    step = CompiledStep(model) if config.compile else Step(model)
    return GraphedStep(model, step, CudaGraphs(model.support.device)) if config.cuda_graph else step
