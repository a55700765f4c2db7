"""Whether there is memory for what will be allocated, before any of it is."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from kvbench.errors import KvbenchError

__all__ = ["MemoryShortError", "free_bytes", "require_memory"]

# A container's limit and what it has in use, of cgroup version 2 and 1. The machine's free memory means nothing there.
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
_UNITS = (("GB", 1e9), ("MB", 1e6), ("bytes", 1))


class MemoryShortError(KvbenchError):
    """Something needs more memory than is free: how much, and what to do."""


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Bytes that can still be allocated on a device."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [int(psutil.virtual_memory().available)]
    for limit, used in _CGROUPS:
        if Path(used).is_file() and (text := Path(limit).read_text().strip()).isdigit():
            free.append(int(text) - int(Path(used).read_text()))
    if hasattr(psutil, "RLIMIT_AS"):  # ulimit -v
        process = psutil.Process()
        limit_of_addresses = process.rlimit(psutil.RLIMIT_AS)[0]
        if limit_of_addresses != psutil.RLIM_INFINITY:
            free.append(limit_of_addresses - process.memory_info().vms)
    return max(0, min(free))


def require_memory(what: str, needed: int, advice: str, device: torch.device | str = "cpu") -> None:
    """Raise MemoryShortError unless ``needed`` bytes are free.

    Args:
        what: needs them, as in "this replay".
        advice: what to do where they are not.
    """
    free = free_bytes(device)
    if needed > free:
        raise MemoryShortError(f"{what} needs about {_size(needed)}, and {_size(free)} are free: {advice}")


def _size(count: int) -> str:
    unit, factor = next((each for each in _UNITS if count >= each[1]), _UNITS[-1])
    return f"{count / factor:,.1f} {unit}" if factor > 1 else f"{count} {unit}"
