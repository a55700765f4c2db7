"""What commands cost on traces of 10^4, 10^5 and 10^6 events: seconds of CPU, and peak memory of the process.

``python benchmarks/replay_scale.py --checkout ../before --checkout .`` compares two checkouts of this repository, in
turn. Each command runs in a process of its own. Times are of the processor (user and system): others may be busy.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from kvcache import GEOMETRIES

_CURVES = """
import sys
from kvbench.capacity.curves import capacities_to_try, hit_rate_curves, most_entries
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import read_steps
reader = TraceReader(sys.argv[1])
steps = list(read_steps(reader.events()))
capacities = capacities_to_try(most_entries(steps))
print(hit_rate_curves(steps, reader.header.geometry, capacities, [sys.argv[2]]).to_string())
"""
# Each command, without "python"; {trace} is its file.
COMMANDS: dict[str, list[str]] = {
    "start": ["-m", "kvbench", "replay", "--help"],
    "synthesize": [
        "-m", "kvbench", "trace", "synthesize", "{trace}", "--geometry", "{geometry}", "--searches", "{searches}",
    ],
    "check": ["-m", "kvbench", "trace", "check", "{trace}"],
    "lru": ["-c", _CURVES, "{trace}", "lru"],
    "fifo": ["-c", _CURVES, "{trace}", "fifo"],
    "new": ["-m", "kvbench", "replay", "{trace}", "--backend", "new", "--repetitions", "0"],
    "verify": ["-m", "kvbench", "replay", "{trace}", "--repetitions", "0"],
    "replay": ["-m", "kvbench", "replay", "{trace}"],
    "report": ["-m", "kvbench", "report", "--trace", "{trace}", "--output", "{trace}-pages"],
}  # fmt: skip
_COLUMNS = "{:>22} {:>10} {:>12} {:>10} {:>12} {:>10}"


def events_of_a_search(geometry: str) -> int:
    """A lookup, a row that is assembled and a store of each environment, at the root and in each simulation."""
    shape = GEOMETRIES[geometry]
    return 3 * shape.env_num * (shape.num_simulations + 1)


def measure(arguments: Sequence[str], checkout: Path) -> tuple[float, float, float]:
    """Seconds of the processor, seconds until the end, and MiB at the peak. Raises click.ClickException if it fails."""
    begun = os.times().elapsed
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=output, stderr=output, cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise click.ClickException(output.read().decode(errors="replace")[-2000:])
    return usage.ru_utime + usage.ru_stime, os.times().elapsed - begun, usage.ru_maxrss / 1024


@click.command()
@click.option("--checkout", "checkouts", type=click.Path(path_type=Path, exists=True), multiple=True, default=["."])
@click.option("--geometry", type=click.Choice(list(GEOMETRIES)), default="cartpole", show_default=True)
@click.option("--events", "sizes", type=click.IntRange(min=1), multiple=True, default=[10**4, 10**5])
@click.option("--command", "commands", type=click.Choice(list(COMMANDS)), multiple=True, default=list(COMMANDS))
def main(checkouts: tuple[Path, ...], geometry: str, sizes: tuple[int, ...], commands: tuple[str, ...]) -> None:
    """Print a row for each command, number of events and checkout."""
    click.echo(_COLUMNS.format("checkout", "command", "events", "CPU s", "elapsed s", "peak MiB"))
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            searches = max(1, round(size / events_of_a_search(geometry)))
            made = Path(folder) / f"{size}.parquet"
            words = {"geometry": geometry, "searches": str(searches)}
            measure([each.format(trace=made, **words) for each in COMMANDS["synthesize"]], Path.cwd())
            for command in commands:
                for number, checkout in enumerate(path.resolve() for path in checkouts):
                    trace = Path(folder) / f"{size}-{number}.parquet" if command == "synthesize" else made
                    words["trace"] = str(trace)
                    arguments = [each if each is _CURVES else each.format(**words) for each in COMMANDS[command]]
                    cpu, elapsed, peak = measure(arguments, checkout)
                    row = [f"{cpu:.1f}", f"{elapsed:.1f}", f"{peak:,.0f}"]
                    click.echo(_COLUMNS.format(checkout.name[-22:], command, f"{size:,}", *row))


if __name__ == "__main__":
    main()
