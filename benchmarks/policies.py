"""How many lookups each eviction policy answers with the right context: ``python benchmarks/policies.py``.

Every recorded trace, and synthetic searches of every geometry and fill (``kvbench.record.fills``), in recurrent pools
of 1/16, 1/8, 1/4 and 1/2 of a whole search:

- ``slots``: of its entries, each in a slot of its own, as in slab storage;
- ``pages``: of the bytes of these slots, in pages of one token that contexts share;
- ``own pages``: of the bytes that a whole search takes in such pages. This is much less.

The table has hits in percent of the recurrent lookups. A context of another history is no hit. ``belady`` is the loose
bound, which forgives lost histories, ``strict`` the one that does not (``kvbench.capacity``). In pages both take each
entry for the two tokens that it shares with no older one. Then the answers: where each policy is best, and how far the
policy for search trees is from the best of the others, and from the bounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from command_line import Help, new_file, positive

from kvbench.capacity.bounds import Future
from kvbench.capacity.curves import ENTRIES, PAGES, Sized, count_lines
from kvbench.capacity.strict import StrictFuture
from kvbench.measure.machine import Machine
from kvbench.record.fills import FILLS, FilledSearch
from kvbench.record.synthetic import write_synthetic_trace
from kvbench.replay.hierarchy import RECUR
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step, read_steps
from kvcache import GEOMETRIES, TOKENS_PER_STEP, EvictionStrategy, Geometry, Scope

SHARES = (16, 8, 4, 2)  # of a whole search, as one over each
STRATEGIES = tuple(each.value for each in EvictionStrategy)
TREE = EvictionStrategy.TREE.value
BELADY, STRICT = "belady", "strict"
# Of the synthetic searches: CartPole's, Atari's smaller set and its full one; others have the generator's 4.
ACTIONS = {"cartpole": 2, "pong": 6, "multitask": 18}
RECORDED = Path(__file__).parent / "traces"


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    print(Machine.describe())
    parts = []
    for name, geometry, steps in _traces(given):
        table = measure(name, geometry, steps)
        print(f"\n{name}\n{markdown(table)}", flush=True)
        parts.append(table)
    whole = pd.concat(parts, ignore_index=True)
    if given.csv:
        whole.to_csv(given.csv, index=False)
    print(f"\n{answers(whole)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--traces", nargs="*", default=["*"], metavar="PATTERN", help="of their names")
    parser.add_argument("--searches", type=positive, default=40, help="of each recorded trace, at most")
    parser.add_argument("--synthetic-searches", type=positive, default=4, help="of each synthetic one")
    parser.add_argument("--seed", type=positive, default=7, help="of the synthetic ones")
    parser.add_argument("--csv", type=new_file, metavar="FILE", help="all numbers")
    return parser


def _traces(given: argparse.Namespace) -> Iterator[tuple[str, Geometry, list[Step]]]:
    """Name, geometry and steps of each trace."""
    for path in sorted(RECORDED.glob("*.parquet")):
        if any(path.match(f"{pattern}.parquet") for pattern in given.traces):
            reader = TraceReader(path)
            yield path.stem, reader.header.geometry, list(read_steps(reader.events(), given.searches))
    for geometry, fill in product(GEOMETRIES.values(), FILLS):
        name = f"{geometry.name}, {fill}"
        if any(Path(name).match(pattern) for pattern in given.traces):
            actions = ACTIONS.get(geometry.name, 4)
            search = FilledSearch(geometry, given.synthetic_searches, given.seed, num_actions=actions, fill=fill)
            with TemporaryDirectory() as folder:
                path = Path(folder) / "trace.parquet"
                for _ in write_synthetic_trace(path, search):
                    pass
                yield name, geometry, list(read_steps(TraceReader(path).events()))


def measure(name: str, geometry: Geometry, steps: Sequence[Step]) -> pd.DataFrame:
    """Hits of recurrent lookups, in percent: a row for each policy, kind of room and share."""
    future, strict = Future(steps, RECUR), StrictFuture(steps, RECUR)
    # Root inferences do not depend on the recurrent pool.
    roots = count_lines([step for step in steps if step.scope is Scope.ROOT], geometry, [Sized("fifo", ENTRIES, [1])])
    most = future.most_entries
    room = {
        ("slots", share): (ENTRIES, max(most // share, 1))
        for share in SHARES
    } | {
        (kind, share): (PAGES, max(most * tokens // share, geometry.context_length))
        for kind, tokens in (("pages", geometry.context_length), ("own pages", TOKENS_PER_STEP))
        for share in SHARES
    }  # fmt: skip
    sized = {unit: sorted({size for each, size in room.values() if each == unit}) for unit in (ENTRIES, PAGES)}
    lines = [Sized(policy, unit, sized[unit]) for policy in STRATEGIES for unit in sized]
    counted = count_lines(steps, geometry, lines).set_index(["policy", "unit", "size"])["hit"].to_dict()
    found_at_roots = int(roots["lookups"][0] - roots["miss"][0])
    for unit, tokens in ((ENTRIES, 1), (PAGES, TOKENS_PER_STEP)):
        for size in sized[unit]:
            # The loose bound takes what it finds at a root for a hit.
            loose = future.found_by_belady(size // tokens) - found_at_roots + int(roots["hit"][0])
            counted |= {(BELADY, unit, size): loose, (STRICT, unit, size): strict.found_by_belady(size // tokens)}
    lookups = future.lookups - int(roots["lookups"][0])
    rows = [
        (name, policy, kind, share, size, 100 * (counted[policy, unit, size] - int(roots["hit"][0])) / lookups)
        for (kind, share), (unit, size) in room.items()
        for policy in (*STRATEGIES, BELADY, STRICT)
    ]
    return pd.DataFrame(rows, columns=["trace", "policy", "room", "share", "size", "hits"])


def markdown(table: pd.DataFrame) -> str:
    """One trace's hits: a row for each kind of room and share, a column for each policy."""
    wide = table.pivot(index=["room", "share"], columns="policy", values="hits")[[*STRATEGIES, BELADY, STRICT]]
    lines = [f"| | {' | '.join(wide.columns)} |", f"|---|{'---|' * len(wide.columns)}"]
    for (room, share), hits in wide.sort_index(level=["room", "share"], ascending=[False, False]).iterrows():
        lines.append(f"| 1/{share} of {room} | {' | '.join(f'{each:.1f}' for each in hits)} |")
    return "\n".join(lines)


def answers(table: pd.DataFrame) -> str:
    """Of all traces: the worst and the mean of what is gained, and of what the bounds leave."""
    wide = table.pivot(index=["room", "share", "trace"], columns="policy", values="hits")
    others = [policy for policy in STRATEGIES if policy != TREE]
    margins = wide[TREE] - wide[others].max(axis=1)
    lines = ["| | cells | tree - best other: worst | mean | worst, against | tree / strict: least | mean |"]
    lines.append("|---|---|---|---|---|---|---|")
    for (room, share), cells in wide.groupby(level=["room", "share"]):
        gained, reached = margins[cells.index], (cells[TREE] / cells[STRICT]).replace(np.inf, np.nan)
        worst = gained.idxmin()
        against = f"{worst[2]}: {cells.loc[worst, others].idxmax()}"
        lines.append(
            f"| 1/{share} of {room} | {len(cells)} | {gained.min():+.1f} | {gained.mean():+.1f} | {against} | "
            f"{100 * reached.min():.0f} % | {100 * reached.mean():.0f} % |"
        )
    best = wide[list(STRATEGIES)].ge(wide[list(STRATEGIES)].max(axis=1) - 0.05, axis=0).sum()
    lines.append(f"\nBest, or within 0.05 points of it, in so many of {len(wide)} cells: {best.to_dict()}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
