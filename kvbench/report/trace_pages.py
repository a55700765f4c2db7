"""A trace's page: the search as it ran, how full pools were, and where stale hits fall."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable

from kvbench.report.backends import OUTCOME_COLOURS, ReplayOfFile, replay_name
from kvbench.report.panels import Cell, Panel, Table
from kvbench.report.plots import Plot, Series
from kvbench.report.replays import ReplayFile
from kvbench.report.searches import Searches
from kvbench.report.text import clean, file_name, number
from kvbench.results.replay import OUTCOMES, ReplayResult, Timeline

__all__ = ["occupancy_panels", "place_panels", "search_panels", "trace_table"]


def trace_table(searches: Searches) -> Table:
    """What the header says."""
    header, geometry = searches.header, searches.header.geometry
    rows: list[list[Cell]] = [
        ["file", searches.name],
        ["SHA-256", searches.sha256],
        ["events", searches.events],
        ["searches read", searches.searches],
        ["synthetic", "yes: no real search stands behind it" if header.synthetic else "no"],
        ["recorded on backend", header.backend or "-"],
        ["created", header.created],
        ["recorder", header.recorder],
    ]
    rows += [[f"geometry, {name}", str(value)] for name, value in geometry.to_dict().items()]
    rows += [[f"source, {name}", str(value)] for name, value in header.source.items()]
    return Table(("what", "value"), rows)


def search_panels(searches: Searches) -> list[Panel]:
    """Depth, reuse distance and tree shape."""
    found = [_depth(searches), _reuse(searches), _tree(searches), _children(searches)]
    return [panel for panel in found if panel is not None]


def _command(searches: Searches) -> str:
    return str(clean(shlex.join(["kvbench", "report", "--trace", str(searches.path)])))


def _name(kind: str, searches: Searches) -> str:
    return file_name(kind, searches.path.stem, beside=searches.sha256)


def _depth(searches: Searches) -> Panel | None:
    simulations = sorted(searches.depth_by_simulation)
    if not simulations:
        return None
    rows: list[list[Cell]] = []
    for simulation in simulations:
        counts = searches.depth_by_simulation[simulation]
        number_of = sum(counts.values())
        mean = sum(depth * count for depth, count in counts.items()) / number_of
        rows.append([simulation, mean, min(counts), max(counts), number_of])
    columns = {"mean": 1, "shallowest": 2, "deepest": 3}
    lines = [
        Series(
            name,
            simulations,
            [float(row[place]) for row in rows],  # type: ignore[arg-type]
            [f"{name}: {number(row[place])}\nsimulation {row[0]}" for row in rows],  # type: ignore[arg-type]
            "line" if name == "mean" else "dashed",
        )
        for name, place in columns.items()
    ]
    return Panel(
        _name("depth", searches),
        "Depth of new nodes",
        Table(("simulation", "mean depth", "shallowest", "deepest", "nodes"), rows),
        "Steps below the root, over all searches and environments, as a search goes on.",
        _command(searches),
        Plot("simulation", "steps below the root", lines, from_zero=True),
    )


def _reuse(searches: Searches) -> Panel | None:
    if not searches.reuse:
        return None
    total = sum(searches.reuse.values())
    rows: list[list[Cell]] = []
    done = 0
    for distance in sorted(searches.reuse):
        done += searches.reuse[distance]
        rows.append([distance, searches.reuse[distance], 100 * done / total])
    shares = [float(row[2]) for row in rows]  # type: ignore[arg-type]
    distances = sorted(searches.reuse)
    return Panel(
        _name("reuse", searches),
        "Reuse distance",
        Table(("stores in between", "lookups", "lookups so near or nearer, %"), rows),
        f"Stores into the recurrent pool between an entry's own and a lookup of it: a pool that evicts in order needs "
        f"more slots than that to still hold it. {searches.never_asked:,} entries were never asked for.",
        _command(searches),
        Plot(
            "stores in between",
            "lookups so near or nearer, %",
            [
                Series.of(
                    "share",
                    distances,
                    shares,
                    lambda distance, share: f"{number(share)} % of lookups\nwithin {distance:.0f} stores",
                )
            ],
            from_zero=True,
        ),
    )  # fmt: skip


def _tree(searches: Searches) -> Panel | None:
    tree = searches.tree
    if len(tree.depths) < 2:
        return None
    edges_x: list[float] = []
    edges_y: list[float] = []
    rows: list[list[Cell]] = []
    children = Counter(parent for parent in tree.parents if parent is not None)
    for place, (simulation, depth, parent) in enumerate(zip(tree.simulations, tree.depths, tree.parents, strict=True)):
        rows.append([simulation, depth, None if parent is None else tree.simulations[parent], children[place]])
        if parent is not None:
            edges_x += [tree.simulations[parent], simulation, float("nan")]
            edges_y += [tree.depths[parent], depth, float("nan")]
    hovers = [f"simulation {row[0]}, depth {row[1]}\n{row[3]} children" for row in rows]
    return Panel(
        _name("tree", searches),
        "One search tree",
        Table(("simulation", "depth", "parent's simulation", "children"), rows),
        "The first search of the first environment: each node where it was added, with a line to its parent. "
        "Simulation -1 is the root.",
        _command(searches),
        Plot(
            "simulation",
            "steps below the root",
            [
                Series("extends", edges_x, edges_y, colour=6),
                Series("node", tree.simulations, tree.depths, hovers, "points", 0),
            ],
        ),
    )


def _children(searches: Searches) -> Panel | None:
    if not searches.children:
        return None
    numbers = sorted(searches.children)
    total = sum(searches.children.values())
    rows: list[list[Cell]] = [
        [each, searches.children[each], 100 * searches.children[each] / total] for each in numbers
    ]
    return Panel(
        _name("children", searches),
        "How often a node is extended",
        Table(("children", "nodes", "nodes, %"), rows),
        "Nodes of all trees, roots included. An entry of a node without children was stored for nothing.",
        _command(searches),
        Plot(
            "children",
            "nodes",
            [
                Series(
                    "nodes",
                    numbers,
                    [searches.children[each] for each in numbers],
                    [f"{searches.children[each]:,} nodes with\n{each} children" for each in numbers],
                    "bars",
                )
            ],
            from_zero=True,
        ),
    )


def occupancy_panels(replays: Iterable[ReplayOfFile]) -> list[Panel]:
    """Keys that something is found under, pool by pool, while a replay goes on."""
    panels = []
    for file, replay in replays:
        known = [(backend, backend.timeline) for backend in replay.backends if backend.timeline]
        for pool in known[0][1].entries if known else ():
            lines = [
                Series.of(backend.name, timeline.steps, timeline.entries[pool], _key_hover(backend.name))
                for backend, timeline in known
            ]
            columns = [timeline.entries[pool] for _, timeline in known]
            rows = [[step, *values] for step, *values in zip(known[0][1].steps, *columns, strict=True)]
            slots = f" The pool has {replay.capacity.recur} slots." if pool == "recur" and replay.capacity.recur else ""
            panels.append(
                Panel(
                    replay_name("occupancy", file, replay, pool),
                    f"Keys in the {'recurrent pool' if pool == 'recur' else 'init pools, together'}",
                    Table(("inferences done", *(f"{backend.name}, keys" for backend, _ in known)), rows),
                    f"{replay.device}, slots: {replay.capacity.label}.{slots} Legacy may answer to more keys than it "
                    "has slots: those are the ones whose slot holds another state's content.",
                    file.command,
                    Plot("inferences done", "keys", lines, from_zero=True),
                )
            )
    return panels


def _key_hover(name: str) -> Callable[[float, float], str]:
    return lambda step, keys: f"{keys:,.0f} keys after\n{step:,.0f} inferences\n{name}"


def place_panels(replays: Iterable[ReplayOfFile]) -> list[Panel]:
    """Where in a search lookups go wrong: by simulation and by depth, a panel for each backend that has any."""
    panels = []
    for file, replay in replays:
        for backend in replay.backends:
            if backend.timeline and backend.count("lookups") > backend.count("hit"):
                panels += [_places(file, replay, backend.name, backend.timeline, axis) for axis in _AXES]
    return panels


_AXES = {"simulation": "simulation (-1: the root)", "depth": "steps of the new node below the root"}


def _places(file: ReplayFile, replay: ReplayResult, backend: str, timeline: Timeline, axis: str) -> Panel:
    counts = timeline.counts(axis)
    places = sorted(counts)
    met = [outcome for outcome in OUTCOMES if any(counts[place][outcome] for place in places)]
    bars = [
        Series(
            outcome.replace("_", " "), places, [counts[place][outcome] for place in places],
            [f"{counts[place][outcome]:,.0f} {outcome.replace('_', ' ')}\n{axis} {place}" for place in places],
            "bars", OUTCOME_COLOURS[outcome],
        )
        for outcome in met
    ]  # fmt: skip
    rows: list[list[Cell]] = [[place, *(counts[place][outcome] for outcome in OUTCOMES)] for place in places]
    return Panel(
        replay_name("places", file, replay, backend, axis),
        f"Where lookups of {backend} fall, by {axis}",
        Table((axis, *(outcome.replace("_", " ") for outcome in OUTCOMES)), rows),
        f"{replay.device}, slots: {replay.capacity.label}.",
        file.command,
        Plot(_AXES[axis], "lookups", bars, from_zero=True),
    )
