"""How numbers get from the host to a device: from pinned memory that is kept, and without waiting for the copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["PinnedStaging", "Staging", "make_staging"]

# Buffers of one owner. It sends one to three tensors in a step, and a step ends with a transfer that waits for them.
BUFFERS = 8


class Staging:
    """Plain copies; on a CPU none.

    Args:
        device: that tensors are sent to.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def send(self, values: Tensor) -> Tensor:
        """``values``, which are on the host, on the device. Where that is the host, they are what was given."""
        return values.to(self.device)


def _pinned(nbytes: int) -> Tensor:
    with torch.inference_mode(False):  # it is written to in and out of inference mode
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)


class PinnedStaging(Staging):
    """Copies from pinned buffers, which take turns; the host goes on before a copy is done.

    A buffer is written to again only after its copy: the host waits for the event behind it. With as many buffers as a
    step has copies, that is never.

    Args:
        device: that tensors are sent to.
        pinned: allocates bytes that a device can copy from by itself.
        event: makes an event, which ``record(stream)`` puts behind what the stream has to do.
        stream: the stream in use on a device.
    """

    def __init__(
        self,
        device: torch.device,
        pinned: Callable[[int], Tensor] = _pinned,
        event: Callable[[], Any] = torch.cuda.Event,
        stream: Callable[[torch.device], Any] = torch.cuda.current_stream,
    ) -> None:
        super().__init__(device)
        self._pinned, self._event, self._stream = pinned, event, stream
        self._buffers: list[tuple[Tensor, Any]] = []  # and the event behind each one's last copy
        self._turn = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return make_staging, (self.device,)  # a copy has buffers of its own

    def send(self, values: Tensor) -> Tensor:
        buffer, event = self._next(values.nbytes)
        staged = buffer[: values.nbytes].view(values.dtype).view(values.shape)
        staged.copy_(values)
        sent = staged.to(self.device, non_blocking=True)
        event.record(self._stream(self.device))
        return sent

    def _next(self, nbytes: int) -> tuple[Tensor, Any]:
        """A buffer of that many bytes or more whose last copy is done, and the event for its next one."""
        if len(self._buffers) < BUFFERS:
            self._buffers.append((self._pinned(nbytes), self._event()))
            return self._buffers[-1]
        turn, self._turn = self._turn, (self._turn + 1) % BUFFERS
        buffer, event = self._buffers[turn]
        if not event.query():
            event.synchronize()
        if len(buffer) < nbytes:
            self._buffers[turn] = self._pinned(max(nbytes, 2 * len(buffer))), event
        return self._buffers[turn]


def make_staging(device: torch.device) -> Staging:
    """The staging that suits a device."""
    return PinnedStaging(device) if device.type == "cuda" else Staging(device)
