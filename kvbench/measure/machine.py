"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kvcache import build_info

__all__ = ["Machine", "short_commit"]


@dataclass(frozen=True)
class Machine:
    """The machine and the versions behind a number.

    Attributes:
        cores: CPUs that this process may run on.
        threads: torch's intra-operation threads.
        accelerator: name of the CUDA device; None where it had no part.
        kvcache_compiled: whether kvcache's compiled parts are there; without them the new cache is slower.
        kvcache_commit: of the library in use, with ``-dirty`` where files differed from it; None where nobody knows,
            as of a source archive.
    """

    processor: str
    cores: int
    threads: int
    accelerator: str | None
    system: str
    python_version: str
    torch_version: str
    kvcache_version: str
    kvcache_compiled: bool
    kvcache_commit: str | None

    @classmethod
    def describe(cls, device: torch.device | str = "cpu") -> Machine:
        """This machine, with the accelerator if ``device`` is one."""
        cuda = torch.device(device).type == "cuda"
        build = build_info()
        return cls(
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            threads=torch.get_num_threads(),
            accelerator=torch.cuda.get_device_name(device) if cuda else None,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python_version=platform.python_version(),
            torch_version=str(torch.__version__),
            kvcache_version=build.version,
            kvcache_compiled=build.compiled,
            kvcache_commit=build.commit,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        commit = f" {short_commit(self.kvcache_commit)}" if self.kvcache_commit else ""
        parts = (
            f"{self.processor}, {self.cores} cores, {self.threads} torch threads",
            self.accelerator,
            f"Python {self.python_version}, torch {self.torch_version}",
            f"kvcache {self.kvcache_version}{commit}, {'compiled' if self.kvcache_compiled else 'not compiled'}",
            self.system,
        )
        return "; ".join(part for part in parts if part)


def short_commit(commit: str) -> str:
    """A commit's name as people write it; what follows a dash (``-dirty``) stays."""
    name, dash, rest = commit.partition("-")
    return f"{name[:8]}{dash}{rest}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
