"""Gathers of full windows against a plain copy of as many bytes: ``python benchmarks/gathers.py``.

A copy is the floor of a gather: each byte is read and written once. Both are measured in turns, with the caches as the
call before left them (warm), and after other memory was written to (cold).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from command_line import Help, positive

from kvbench.measure.machine import Machine
from kvcache import GEOMETRIES, Geometry
from kvcache.kernels import Correction, large_memory, make_kernels

OTHER_MEMORY = 12 << 20  # float64: three times a cache of 32 MiB
DEPTHS = 5  # of a tree, each with corrections of its own
FORMS = ("no correction", "one for all rows", "one for each row")


def gathers(geometry: Geometry, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """A copy, and a gather of each form, of as many bytes as a window has that has slid."""
    kinds, rows, heads = geometry.num_layers * 2, geometry.env_num, geometry.num_heads
    tokens, width = geometry.slid_size, kinds * heads * geometry.head_dim
    pool, copied, copy = (large_memory((tokens * rows, width), "cpu", dtype).fill_(1) for _ in range(3))
    shifts = large_memory((DEPTHS * tokens, width), "cpu", dtype).fill_(1)
    batch = large_memory((kinds, rows, heads, geometry.context_length, geometry.head_dim), "cpu", dtype).zero_()
    index = torch.arange(tokens * rows).view(tokens, rows)  # all environments step together
    shared = torch.arange(tokens).view(tokens, 1)
    by_depth = shared + tokens * torch.randint(0, DEPTHS, (1, rows))
    kernels = make_kernels("cpu")
    corrections = None, Correction(shifts, shared), Correction(shifts, by_depth)
    calls: dict[str, Callable[[], object]] = {"copy": lambda: copy.copy_(copied)}
    for form, correction in zip(FORMS, corrections, strict=True):
        calls[form] = lambda added=correction: kernels.gather(pool, index, batch, 0, added)
    return calls


def measure(calls: dict[str, Callable[[], object]], rounds: int, cold: bool) -> dict[str, np.ndarray]:
    """Seconds of each call, the calls in turns."""
    other = np.ones(OTHER_MEMORY if cold else 0)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            other += 1
            began = perf_counter()
            call()
            seconds[name].append(perf_counter() - began)
    return {name: np.array(each) for name, each in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="compares gathers of full windows with a plain copy", formatter_class=Help
    )
    parser.add_argument(
        "--geometry", nargs="+", default=list(GEOMETRIES), choices=list(GEOMETRIES), help="measure these"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of tokens")
    parser.add_argument("--threads", type=positive, default=1, help="that torch uses")
    parser.add_argument("--rounds", type=positive, default=40, help="of each gather")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"| geometry | caches | copy, us | {' | '.join(f'{form}: % of its bandwidth' for form in FORMS)} |")
    print("|---|---|---|" + "---|" * len(FORMS))
    for name in arguments.geometry:
        for state in ("warm", "cold"):
            calls = gathers(GEOMETRIES[name], getattr(torch, arguments.dtype))
            seconds = measure(calls, arguments.rounds, state == "cold")
            shown = " | ".join(f"{np.median(seconds['copy'] / seconds[form]) * 100:.0f}" for form in FORMS)
            print(f"| {name} | {state} | {np.median(seconds['copy']) * 1e6:.0f} | {shown} |", flush=True)
    print(Machine.describe())


if __name__ == "__main__":
    main()
