"""Record a search, replay it on two caches with a small pool, and see what each returns: counts, and a sentence."""

import tempfile
from dataclasses import replace
from pathlib import Path

from kvbench.record.world_model import record_model
from kvbench.replay.passes import Replay
from kvbench.replay.result import result_of
from kvbench.replay.summary import describe_trace
from kvbench.report.answers import answers
from kvbench.results.replay import Capacity
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import read_steps
from kvcache import GEOMETRIES, CacheConfig
from kvcache.world_model import WorldModelConfig

SEARCHES, SLOTS = 3, 20


def main() -> None:
    shape = replace(GEOMETRIES["cartpole"], num_simulations=10)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "search.parquet"
        for _ in record_model(path, WorldModelConfig(shape), SEARCHES, seed=0):
            pass
        reader = TraceReader(path)
        steps = list(read_steps(reader.events()))
        trace = describe_trace(reader, steps)
    config = CacheConfig(reader.header.geometry, recur_pool_size=SLOTS)
    reports = Replay(steps, config, ["legacy", "new"]).run(repetitions=0)
    for name, report in reports.items():
        total = report.verification.outcomes.total
        counts = ", ".join(f"{outcome.value} {count}" for outcome, count in sorted(total.items(), key=str))
        print(f"{name}, {SLOTS} recurrent slots: {counts}")
    print(*answers(result_of(reports, trace, "cpu", Capacity(f"recur={SLOTS}", recur=SLOTS))))


if __name__ == "__main__":
    main()
