"""``kvbench explain``: which functions have more instructions than before?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvbench.cli.console import make_table, say, show
from kvbench.cli.gate import NotMeasuredError, check_packages
from kvbench.cli.options import FILE, option
from kvbench.errors import KvbenchError, told
from kvbench.files import check_writable, temporary_folder, whole_or_absent

if TYPE_CHECKING:
    from kvbench.gate.explain import Growth

__all__ = ["explain"]

MOST_ROWS = 10
_BENCHMARK = re.compile(r"(?:test_)?((?:operation|replay)\[.+\]|import)")


def _parse_benchmark(context: click.Context, parameter: click.Parameter, text: str) -> str:
    found = _BENCHMARK.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(
            f"the instructions of {text!r} are not counted: give operation[...], replay[...] or import, as the gate's "
            "table has it"
        )
    return f"test_{found[1]}"


@click.command()
@click.argument("benchmark", callback=_parse_benchmark)
@click.argument("base")
@click.argument("head", required=False)
@option("--graph", type=FILE, help="Write a differential flame graph (SVG) here: red has more, blue has less.")
@option("--pass-env")
def explain(benchmark: str, base: str, head: str | None, graph: Path | None, pass_env: tuple[str, ...]) -> None:
    """Show which functions of BENCHMARK execute more instructions.

    What HEAD executes more than BASE. BENCHMARK is one whose instructions the gate counts, as in
    "operation[new:slab-pong-store]". HEAD is a revision; without it, the working tree. callgrind counts both, so it
    takes a minute or two, and needs valgrind.

    Exit code: 0 it was counted, 2 it could not be.
    """
    check_packages()
    from kvbench.gate.explain import explain_benchmark, grown_functions
    from kvbench.gate.processes import GateFixture, find_checkout, find_commit
    from kvbench.profile.flame_graph import render_difference

    try:
        if graph is not None:
            check_writable(graph)  # now, and not after minutes of counting
        checkout = find_checkout(Path.cwd())
        commit = find_commit(checkout, head) if head else ""
        with temporary_folder("kvcache-explain") as folder:
            fixture = GateFixture(checkout, base, folder, pass_env=pass_env, head=commit)
            say(f"counting {benchmark} function by function")
            before, after = explain_benchmark(fixture, benchmark)
        title = f"{benchmark}: {head or 'the working tree'} against {base} ({fixture.commit[:8]})"
        change = _change(sum(before.values()), sum(after.values()))
        if graph is not None:
            with whole_or_absent(graph) as path:
                path.write_text(render_difference(before, after, title, f"{change} instructions in a call"), "utf-8")
    except (KvbenchError, OSError) as error:
        raise NotMeasuredError(told(error)) from None
    _show(title, change, grown_functions(before, after))


def _show(title: str, change: str, grown: list[Growth]) -> None:
    table = make_table(title, ["function"], ["base", "head", "more"])
    shown = grown if len(grown) <= MOST_ROWS else grown[: MOST_ROWS // 2] + grown[-(MOST_ROWS // 2) :]
    for each in shown:
        table.add_row(each.function, f"{each.base:,}", f"{each.head:,}", f"{each.more:+,}")
    left_out = len(grown) - len(shown)
    rest = f"; {left_out} functions between them changed less" if left_out else ""
    text = f"{change} instructions in a call, with those that name Python's functions"
    show(*([table] if grown else ["no function's count changed"]), f"{text}{rest}")


def _change(base: int, head: int) -> str:
    share = f" ({100 * (head / base - 1):+.2f} %)" if base else ""
    return f"{base:,} -> {head:,}{share}"
