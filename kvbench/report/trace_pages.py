"""A trace's page: the search as it ran, how full pools were, and where stale hits fall."""

from __future__ import annotations

import math
import shlex
from collections.abc import Hashable, Iterable, Iterator, Sequence

import pandas as pd

from kvbench.report.backends import OUTCOME_COLOURS
from kvbench.report.input_files import Replay
from kvbench.report.panels import Cell, Columns, Panel, Plot, Series, Table, without_repeats
from kvbench.report.search_shape import NO_NODE
from kvbench.report.searches import Searches
from kvbench.report.text import clean, file_name, number, words
from kvbench.results.replay import OUTCOMES, BackendResult, Timeline

__all__ = ["occupancy_panels", "place_panels", "search_panels", "trace_table"]

_AXES = {"simulation": "simulation (-1: the root)", "depth": "steps of the new node below the root"}


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
    """Depth, reuse distance and tree shape; those of which the trace has something."""
    shape = searches.shape
    shown = [
        (not shape.depths().empty, _depth),
        (bool(shape.reuse), _reuse),
        (len(shape.tree()) > 1, _tree),
        (bool(shape.extended), _children),
    ]
    return [make(searches) for is_there, make in shown if is_there]


def _panel(kind: str, title: str, table: Columns, note: str, searches: Searches, plot: Plot) -> Panel:
    command = clean(shlex.join(["kvbench", "report", "--trace", str(searches.path)]))
    name = file_name(kind, searches.path.stem, beside=searches.sha256)
    data = Table.of(table)
    return Panel(name, title, data.thinned(), note, command, plot, data)


def _depth(searches: Searches) -> Panel:
    def hover(simulation: float, depth: float, name: str) -> str:
        return f"{name}: {number(depth)}\nsimulation {simulation}"

    depths = searches.shape.depths()
    depths.columns = pd.Index(["simulation", "mean depth", "shallowest", "deepest", "nodes"])
    simulations = depths["simulation"].tolist()
    mean = Series("mean", simulations, depths["mean depth"].tolist(), hover)
    lines = [Series(name, simulations, depths[name].tolist(), hover, "dashed") for name in ("shallowest", "deepest")]
    note = "Steps below the root, over all searches and environments, as a search goes on."
    plot = Plot("simulation", "steps below the root", [mean, *lines], from_zero=True)
    return _panel("depth", "Depth of new nodes", depths, note, searches, plot)


def _reuse(searches: Searches) -> Panel:
    def hover(distance: float, share: float, name: str) -> str:
        return f"{number(share)} % of lookups\nwithin {distance:.0f} stores"

    near = "lookups so near or nearer, %"
    reuse = pd.Series(searches.shape.reuse).sort_index()
    share = 100 * reuse.cumsum() / reuse.sum()
    table = pd.DataFrame({"lookups": reuse, near: share}).rename_axis("stores in between").reset_index()
    line = Series("share", reuse.index.tolist(), share.tolist(), hover)
    note = (
        "Stores into the recurrent pool between an entry's own and a lookup of it: a pool that evicts in order needs "
        f"more slots than that to still hold it. {searches.shape.never_asked:,} entries were never asked for."
    )
    plot = Plot("stores in between", near, [line], from_zero=True)
    return _panel("reuse", "Reuse distance", table, note, searches, plot)


def _tree(searches: Searches) -> Panel:
    tree = searches.tree()
    simulations, depths = tree["simulation"].to_dict(), tree["depth"].to_dict()
    edges_x: list[float] = []
    edges_y: list[float] = []
    for row, parent in tree["parent"].items():
        if parent != NO_NODE:
            edges_x += [simulations[parent], simulations[row], math.nan]
            edges_y += [depths[parent], depths[row], math.nan]
    table: dict[str, list[Cell]] = {
        "simulation": list(simulations.values()),
        "depth": list(depths.values()),
        "parent's simulation": [simulations.get(parent) for parent in tree["parent"]],
        "children": tree["parent"].value_counts().reindex(tree.index, fill_value=0).tolist(),
    }
    children = dict(zip(table["simulation"], table["children"], strict=True))

    def hover(simulation: float, depth: float, name: str) -> str:
        return f"simulation {simulation}, depth {depth}\n{children[simulation]} children"

    lines = [
        Series("extends", edges_x, edges_y, colour=6),
        Series("node", list(simulations.values()), list(depths.values()), hover, "points", 0),
    ]
    note = (
        "The first search of the first environment: each node where it was added, with a line to its parent. "
        "Simulation -1 is the root."
    )
    return _panel("tree", "One search tree", table, note, searches, Plot("simulation", "steps below the root", lines))


def _children(searches: Searches) -> Panel:
    def hover(children: float, nodes: float, name: str) -> str:
        return f"{nodes:,} nodes with\n{children} children"

    counts = pd.Series(searches.shape.extended).sort_index().rename_axis("children")
    table = pd.DataFrame({"nodes": counts, "nodes, %": 100 * counts / counts.sum()}).reset_index()
    bars = Series("nodes", counts.index.tolist(), counts.tolist(), hover, "bars")
    note = "Nodes of all trees, roots included. An entry of a node without children was stored for nothing."
    plot = Plot("children", "nodes", [bars], from_zero=True)
    return _panel("children", "How often a node is extended", table, note, searches, plot)


def occupancy_panels(replays: Iterable[Replay]) -> Iterator[Panel]:
    """Keys that something is found under, pool by pool, while a replay goes on; pools that fill alike once."""
    alike: dict[tuple[str, str, Hashable], list[Replay]] = {}
    for replay in replays:
        for pool in replay.timelines[0][1].entries if replay.timelines else ():
            keys = tuple((backend.name, *timeline.entries[pool]) for backend, timeline in replay.timelines)
            alike.setdefault((pool, replay.result.device, keys), []).append(replay)
    for (pool, _, _), same in alike.items():
        yield _occupancy_panel(pool, same)


def _occupancy_panel(pool: str, replays: Sequence[Replay]) -> Panel:
    def hover(step: float, keys: float, name: str) -> str:
        return f"{keys:,.0f} keys after\n{step:,.0f} inferences\n{name}"

    replay = replays[0]
    steps = replay.timelines[0][1].steps
    keys = {backend.name: timeline.entries[pool] for backend, timeline in replay.timelines}
    slots = replay.result.capacity.recur
    size = f" The pool has {slots} slots." if pool == "recur" and slots else ""
    data = Table.of({"inferences done": steps, **{f"{name}, keys": each for name, each in keys.items()}})
    return Panel(
        replay.name("occupancy", pool),
        f"Keys in the {'recurrent pool' if pool == 'recur' else 'init pools, together'}",
        data.thinned(),
        f"{replay.result.device}, slots: {_capacities(replays)}.{size} Legacy may answer to more keys "
        "than it has slots: those are the ones whose slot holds another state's content.",
        replay.file.command,
        Plot(
            "inferences done",
            "keys",
            without_repeats(Series(name, steps, entries, hover) for name, entries in keys.items()),
            from_zero=True,
        ),
        data,
    )


def _capacities(replays: Iterable[Replay]) -> str:
    return "; ".join(dict.fromkeys(replay.result.capacity.label for replay in replays))


def place_panels(replays: Iterable[Replay]) -> list[Panel]:
    """Where in a search lookups go wrong: by simulation and by depth, once for all backends that go wrong alike."""
    alike: dict[tuple[Hashable, ...], list[tuple[Replay, BackendResult, Timeline]]] = {}
    for replay in replays:
        for backend, timeline in replay.timelines:
            if backend.count("lookups") > backend.count("hit"):
                counts = tuple(repr(sorted(timeline.counts(axis).items())) for axis in _AXES)
                place = replay.identity, replay.result.device, replay.result.capacity.label
                alike.setdefault((*place, counts), []).append((replay, backend, timeline))
    return [
        _places(same[0][0], ", ".join(backend.name for _, backend, _ in same), same[0][2], axis)
        for same in alike.values()
        for axis in _AXES
    ]


def _places(replay: Replay, backend: str, timeline: Timeline, axis: str) -> Panel:
    def hover(place: float, count: float, name: str) -> str:
        return f"{count:,.0f} {name}\n{axis} {place}"

    counts = dict(sorted(timeline.counts(axis).items()))
    columns = {outcome: [each[outcome] for each in counts.values()] for outcome in OUTCOMES}
    bars = [
        Series(words(outcome), list(counts), column, hover, "bars", OUTCOME_COLOURS[outcome])
        for outcome, column in columns.items()
        if any(column)
    ]
    return Panel(
        replay.name("places", backend, axis),
        f"Where lookups of {backend} fall, by {axis}",
        Table.of({axis: list(counts), **{words(outcome): column for outcome, column in columns.items()}}),
        f"{replay.result.device}, slots: {replay.result.capacity.label}.",
        replay.file.command,
        Plot(_AXES[axis], "lookups", bars, from_zero=True),
    )
