"""Runs as a worker leaves them, and a worker that leaves them without LightZero."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from kvbench.results.training import TrainedBackend, TrainingResults
from kvbench.training.order import LOG, NUMBERS, SUMMARY, Order, Summary

__all__ = ["NOTES", "backend", "results", "summary", "write_notes"]


def search(env_steps, value=0.5, action=1, environment=0):
    return {
        "kind": "search", "env_steps": env_steps, "environment": environment, "action": action, "visits": [3, 2],
        "searched value": value, "predicted value": 0.25,
    }  # fmt: skip


NOTES = [
    search(1),
    search(2, environment=1),
    {"kind": "episode", "env_steps": 2, "return": 7.0, "length": 1},
    {"kind": "learn", "env_steps": 2, "weighted_total_loss": 2.5, "sum of weights": 11.0},
    {"kind": "learn", "env_steps": 2, "weighted_total_loss": 1.5, "sum of weights": 12.0},
    search(3, value=float("nan")),
]


def write_notes(path, notes):
    path.write_text("".join(f"{json.dumps(each)}\n" for each in notes))
    return path


def summary(**changes):
    values = {
        "ended_with": None, "env_steps": 3, "searches": 2, "wall_seconds": 9.0, "search_seconds": 4.0,
        "cache_seconds": 1.0, "peak_bytes": 10**8, "cache_bytes": 10**6, "distinct_keys": 0.75, "lookups": 20,
        "found": 18, "stale_hits": 1, "validation": None,
    }  # fmt: skip
    return Summary(**values | changes)


def backend(name, **changes):
    values = {
        "name": name, "ended_with": None, "first_difference": None, "largest_difference": 0.0, "env_steps": 300,
        "searches": 40, "learn_steps": 25, "wall_seconds": 9.0, "searches_per_second": 4.5, "cache_share": 0.25,
        "cache_ms_per_search": 12.5, "peak_bytes": 7 * 10**8, "cache_bytes": 3 * 10**6, "distinct_keys": 0.75,
        "lookups": 1000, "hit_rate": 0.9, "stale_hit_rate": 0.0, "miss_rate": 0.1, "stale_hits": 0,
        "validation": None, "returns": [(100, 12.0), (180, 31.0), (300, 25.0)], "losses": [(0, 3.5), (1, 3.25)],
    }  # fmt: skip
    return TrainedBackend(**values | changes)


def results(*backends):
    return TrainingResults(
        command=["train", "lightzero", "--env", "cartpole"], library="LightZero 0.2.0", environment="CartPole-v0",
        settings={"policy.num_simulations": 8}, seed=0, env_steps=300, machine={"processor": "a chip", "cores": 2},
        packages={"torch": "2.13.0"}, backends=list(backends),
    )  # fmt: skip


def main() -> None:
    """In place of the worker: what happens is the setting ``plan`` of the backend that it is for."""
    order = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    plan = order.settings["plan"].get(order.backend, {})
    folder = Path(order.folder)
    print("a library complains", file=sys.stderr)
    if "fails" in plan:
        with open(folder / LOG, "a") as log:
            log.write("collecting\n")
        raise MemoryError(plan["fails"])
    write_notes(folder / NUMBERS, plan.get("notes", NOTES))
    (folder / SUMMARY).write_bytes(msgspec.json.encode(summary(**plan.get("summary", {}))))
    print(json.dumps({"env_steps": 2, "learn_steps": 0}), flush=True)
    if "waits" in plan:
        import time

        time.sleep(60)


if __name__ == "__main__":
    main()
