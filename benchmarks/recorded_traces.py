"""Prints what the recorded traces show, as Markdown: ``python benchmarks/recorded_traces.py`` (a few minutes).

Three tables, a line for each trace: what it holds; what the caches return for it; and how many lookups recurrent pools
of a part of the size do not answer rightly, beside Belady's bound. The second is of the first searches. Nothing is
timed: the numbers are the same everywhere.
``--check`` replays each trace on the backend that recorded it, and says how many lookups had another outcome.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from statistics import median

import pandas as pd
import torch

from kvbench.capacity.curves import hit_rate_curves, most_entries
from kvbench.replay.content import Contents
from kvbench.replay.drive import FillerContent, Latents, run_step
from kvbench.replay.hierarchy import RECUR, Hierarchy
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import Verification, verify_replay
from kvbench.trace.keys import distinct_keys
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step, read_steps
from kvcache import MISS, CacheBackend, CacheConfig, Geometry, make_backend

__all__ = ["RecordedHits", "Shown", "replayed_as_recorded", "traces", "what_it_shows"]

FOLDER = Path(__file__).parent / "traces"
BACKENDS = ("legacy-0.2.0", "legacy", "new")
POLICIES = ("belady", "fifo", "lru", "priority", "legacy")
SHARES = (1, 2, 4, 8)  # of the most entries that the trace stores between two clears

CONTENTS = (
    "trace", "searches", "distinct keys", "root lookups", "node lookups: init + recurrent pool", "in neither",
    "reuse distance: median, most", "depth: median, most", "stores that slide", "fill of the window", "file, bytes",
)  # fmt: skip
OUTCOMES = ("trace", "backend", "root hits", "node hits", "stale hits", "mismatches", "misses", "reserved, MB")
CAPACITIES = ("trace", "recurrent slots", "full entries, MB", "Belady", "FIFO", "LRU", "PRIORITY", "legacy (stale)")


def traces() -> list[Path]:
    return sorted(FOLDER.glob("*.parquet"))


@dataclass
class Shown:
    """What a trace shows of itself, whatever the cache.

    Attributes:
        root: lookups of initial inferences, all in init pools.
        by_init, by_recur, by_none: recurrent lookups, by the kind of unlimited pool that answers.
        reuse: for each recurrent lookup that the recurrent pool answers, how many other keys of that pool were
            stored or looked up since its own was.
        depths: of the new latents of recurrent lookups, in steps below the root.
        stores: rows stored.
        slides: of these, whose window slid.
        fill: tokens of each assembled row.
    """

    root: int = 0
    by_init: int = 0
    by_recur: int = 0
    by_none: int = 0
    reuse: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    stores: int = 0
    slides: int = 0
    fill: list[int] = field(default_factory=list)


def what_it_shows(steps: Sequence[Step], events: pd.DataFrame, geometry: Geometry) -> Shown:
    """Count over all of a trace's steps, which are of ``events``."""
    shown = Shown()
    pools: Hierarchy[list[int]] = Hierarchy(lambda kind: [])  # keys, the last used one last
    for step in steps:
        for env, key, depth in zip(step.envs, step.parents, step.depths, strict=True):
            if key is None:
                continue
            if not step.is_recurrent:
                shown.root += 1
                continue
            shown.depths.append(depth)
            _answer(shown, pools, step, env, key)
        for env, key in zip(step.envs, step.keys, strict=False):
            _use(pools.written(env, step.scope), key)
        for cleared in pools.cleared_by(step):
            cleared.clear()
    _count_windows(shown, events, geometry)
    return shown


def _answer(shown: Shown, pools: Hierarchy[list[int]], step: Step, env: int, key: int) -> None:
    answering = [(kind, keys) for kind, keys in pools.asked(env, step.scope) if key in keys]
    if not answering:
        shown.by_none += 1
        return
    kind, keys = answering[0]
    if kind == RECUR:
        shown.by_recur += 1
        shown.reuse.append(len(keys) - 1 - keys.index(key))
        _use(keys, key)
    else:
        shown.by_init += 1


def _use(keys: list[int], key: int) -> None:
    if key in keys:
        keys.remove(key)
    keys.append(key)


def _count_windows(shown: Shown, events: pd.DataFrame, geometry: Geometry) -> None:
    """Slides, and how full the windows are."""
    assembled = events[events["kind"] == "assemble"]
    stored = events[events["kind"] == "store"]
    shown.fill = [int(size) for size in assembled["size"] if size]
    shown.stores = len(stored)
    both = stored.merge(assembled, on=["batch", "env"], how="left", suffixes=("", "_before"))
    sizes = both["tokens"] + both["size_before"].fillna(0)
    shown.slides = sum(geometry.window(int(size))[0] > 0 for size in sizes)


class RecordedHits(FillerContent):
    """Compares what each lookup found with what the recorded run did: hit or miss, and the tokens of the row.

    Attributes:
        sizes: that the run assembled in the present batch, by environment.
        lookups: for which the trace says what the run found.
        different: of these, that come out otherwise.
    """

    lookups = different = 0

    def __init__(self, backend: CacheBackend) -> None:
        super().__init__(backend)
        self.sizes: dict[int, int] = {}

    def assembled(self, backend: CacheBackend, step: Step, found: list[int]) -> None:
        rows = zip(step.envs, found, step.recorded_hits, backend.keys_values_wm_size_list, strict=True)
        for env, size, hit, tokens in rows:
            if hit is not None:
                self.lookups += 1
                self.different += (size != MISS, tokens) != (hit, self.sizes.get(env, tokens))


def replayed_as_recorded(path: Path, searches: float = math.inf) -> RecordedHits:
    """A replay of a trace's first searches, or all, on the backend, and with the pools, that recorded it.

    Contents are not checked.
    """
    reader = TraceReader(path)
    assert reader.header.backend is not None, "a synthetic trace was recorded on no backend"
    backend = _backend(reader, reader.header.backend)
    compared, latents = RecordedHits(backend), Latents(reader.header.geometry.embed_dim, "cpu")
    sizes: dict[int, dict[int, int]] = {}  # by batch
    events = [*takewhile(lambda event: event["search"] < searches, reader.events())]
    for event in events:
        assembled = sizes.setdefault(event["batch"], {})
        if event["kind"] == "assemble":
            assembled[event["env"]] = event["size"]
    for step, compared.sizes in zip(read_steps(events), sizes.values(), strict=True):
        run_step(backend, step, latents.inputs(step), compared, lambda operation, call, *given: call(*given))
    return compared


def replayed(reader: TraceReader, name: str, steps: Sequence[Step]) -> Verification:
    """A replay whose contents are checked."""
    return verify_replay(
        _backend(reader, name),
        steps,
        Contents(reader.header.geometry),
        Latents(reader.header.geometry.embed_dim, "cpu"),
    )


def _backend(reader: TraceReader, name: str) -> CacheBackend:
    """The backend that recorded a trace has the recorded pools, others have their own."""
    pools = reader.header.pools if name == reader.header.backend else {}
    backend = make_backend(
        name,
        CacheConfig(reader.header.geometry, **{f"{kind}_pool_size": slots for kind, slots in pools.items()}),
    )
    backend.position_shift = Contents(reader.header.geometry).position_shift("cpu", torch.float32)
    return backend


def contents_row(path: Path) -> list[str]:
    """The line of a trace in the first table."""
    reader = TraceReader(path)
    geometry = reader.header.geometry
    share = distinct_keys(list(reader.batches()))
    steps = list(read_steps(reader.events()))
    shown = what_it_shows(steps, reader.to_pandas(), geometry)
    reuse = f"{median(shown.reuse):.0f}, {max(shown.reuse)}" if shown.reuse else "-"
    return [
        path.stem,
        str(len({step.search for step in steps})),
        f"{share:.1%}",
        f"{shown.root}",
        f"{shown.by_init} + {shown.by_recur}",
        f"{shown.by_none}",
        reuse,
        f"{median(shown.depths):.0f}, {max(shown.depths)}",
        f"{shown.slides / shown.stores:.0%}",
        f"{sum(shown.fill) / len(shown.fill) / geometry.context_length:.0%}",
        f"{path.stat().st_size:,}",
    ]


def outcome_rows(path: Path, searches: int) -> Iterator[list[str]]:
    """The lines of a trace in the second table: of its first searches."""
    reader = TraceReader(path)
    steps = list(read_steps(reader.events(), searches))
    for name in BACKENDS:
        found = replayed(reader, name, steps)
        root, node = found.outcomes.root, found.outcomes.node
        yield [
            path.stem,
            name,
            f"{root[Outcome.HIT]} of {root.total()}",
            f"{node[Outcome.HIT]} of {node.total()}",
            *(str(found.outcomes.total[each]) for each in (Outcome.STALE_HIT, Outcome.CONTEXT_MISMATCH, Outcome.MISS)),
            f"{sum(found.bytes_reserved.values()) / 1e6:.1f}",
        ]


def capacity_rows(path: Path) -> Iterator[list[str]]:
    """The lines of a trace in the third table."""
    reader = TraceReader(path)
    geometry = reader.header.geometry
    steps = list(read_steps(reader.events()))
    most = most_entries(steps)
    slots = list(dict.fromkeys(max(1, most // share) for share in SHARES))
    table = hit_rate_curves(steps, geometry, slots, POLICIES)
    for size in slots:
        rows = table[table["entries"] == size].set_index("policy")
        lost = 100 * (1 - rows["hit_rate"])
        stale = 100 * rows["stale_hit_rate"]["legacy"]
        yield [
            path.stem,
            f"{size} of {most}",
            f"{size * geometry.entry_bytes() / 1e6:.2f}",
            *(f"{lost[policy]:.1f}" for policy in POLICIES[:-1]),
            f"{lost['legacy']:.1f} ({stale:.1f})",
        ]


def _table(head: Sequence[str]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")


def _row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="prints what the recorded traces show")
    parser.add_argument("--check", action="store_true", help="only check the recorded outcomes")
    parser.add_argument("traces", nargs="*", type=Path, default=traces(), help="files; by default those in the folder")
    parser.add_argument("--searches", type=int, default=4, help="of each trace, for what caches return")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths: list[Path] = arguments.traces
    if arguments.check:
        for path in paths:
            compared = replayed_as_recorded(path)
            print(f"{path.stem}: {compared.different} of {compared.lookups} lookups differ from the recorded run")
        return
    _table(CONTENTS)
    for path in paths:
        _row(contents_row(path))
    _table(OUTCOMES)
    for path in paths:
        for cells in outcome_rows(path, arguments.searches):
            _row(cells)
    _table(CAPACITIES)
    for path in paths:
        for cells in capacity_rows(path):
            _row(cells)


if __name__ == "__main__":
    main()
