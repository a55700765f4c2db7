"""What commands cost on traces of 10^4 to 10^7 events: seconds of CPU, microseconds an event, and peak memory.

``python benchmarks/scale.py`` prints the table of docs/traces.md. ``--checkout ../before --checkout .`` compares two
checkouts of this repository, in turn. Each command runs in a process of its own. Times are of the processor (user and
system): others may be busy. The traces are synthetic. They lie in a temporary folder, and are removed at the end.
``--traces FOLDER`` keeps them there for the next time; then they need not be made again, which is not measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from kvbench.measure.machine import Machine
from kvcache import GEOMETRIES

# Each command, after "kvbench"; {trace} is its file.
COMMANDS: dict[str, str] = {
    "start": "trace --help",
    "synthesize": "trace synthesize {trace} --geometry {geometry} --searches {searches}",
    "check": "trace check {trace}",
    "show": "trace show {trace}",
    "capacity": "capacity {trace} --policy lru",
    "report": "report --trace {trace} --output {pages}",
    "counters": "replay {trace} --backend new --repetitions 0 --counted-searches 10",
    "both": "replay {trace} --repetitions 0",
    "replay": "replay {trace}",
}
DEFAULT = ("synthesize", "check", "show", "capacity", "report", "counters")
_TITLES = ("command", "events", "CPU s", "elapsed s", "us of CPU a further event", "peak MiB")


def events_of_a_search(geometry: str) -> int:
    """A lookup, a row that is assembled and a store of each environment, at the root and in each simulation."""
    shape = GEOMETRIES[geometry]
    return 3 * shape.env_num * (shape.num_simulations + 1)


def measure(arguments: Sequence[str], checkout: Path) -> tuple[float, float, float]:
    """Seconds of the processor, seconds until the end, and MiB at the peak. Raises click.ClickException if it fails."""
    begun = os.times().elapsed
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kvbench", *arguments], stdout=output, stderr=output, cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise click.ClickException(output.read().decode(errors="replace")[-2000:])
    return usage.ru_utime + usage.ru_stime, os.times().elapsed - begun, usage.ru_maxrss / 1024


def _print_row(*cells: str) -> None:
    click.echo(f"| {' | '.join(cells)} |")


class _Scale:
    """Measures commands, and knows what each took at the size before."""

    def __init__(self, folder: Path, traces: Path, geometry: str, checkouts: Sequence[Path]) -> None:
        self._folder, self._traces, self._geometry, self._checkouts = folder, traces, geometry, checkouts
        self._before: dict[tuple[str, int], tuple[int, float]] = {}  # events and seconds, by command and checkout

    def print_rows(self, size: int, commands: Sequence[str]) -> None:
        """Of a trace of ``size`` events or so, which is made first."""
        searches = max(1, round(size / events_of_a_search(self._geometry)))
        trace = self._traces / f"{self._geometry}-{size}.parquet"

        def cost(command: str, trace: Path, checkout: Path) -> tuple[float, float, float]:
            words = {"trace": trace, "pages": self._folder / "pages", "geometry": self._geometry, "searches": searches}
            return measure([word.format(**words) for word in COMMANDS[command].split()], checkout)

        made = None if trace.exists() else cost("synthesize", trace, Path.cwd())
        for command in commands:
            for number, checkout in enumerate(self._checkouts):
                if command != "synthesize":
                    self._print_row(size, command, number, cost(command, trace, checkout))
                elif made is not None and checkout == Path.cwd():
                    self._print_row(size, command, number, made)

    def _print_row(self, size: int, command: str, number: int, measured: tuple[float, float, float]) -> None:
        cpu, elapsed, peak = measured
        fewer, then = self._before.get((command, number), (size, cpu))
        further = f"{(cpu - then) / (size - fewer) * 1e6:.2f}" if size > fewer else "-"
        self._before[command, number] = size, cpu
        name = [self._checkouts[number].name] if len(self._checkouts) > 1 else []
        _print_row(*name, command, f"{size:,}", f"{cpu:.1f}", f"{elapsed:.1f}", further, f"{peak:,.0f}")


@click.command()
@click.option("--checkout", "checkouts", type=click.Path(path_type=Path, exists=True), multiple=True, default=["."])
@click.option("--geometry", type=click.Choice(list(GEOMETRIES)), default="cartpole", show_default=True)
@click.option("--events", "sizes", type=click.IntRange(1, 10**9), multiple=True, default=[10**4, 10**5, 10**6, 10**7])
@click.option("--command", "commands", type=click.Choice(list(COMMANDS)), multiple=True, default=DEFAULT)
@click.option("--traces", type=click.Path(path_type=Path, file_okay=False, exists=True))
def main(
    checkouts: tuple[Path, ...], geometry: str, sizes: tuple[int, ...], commands: tuple[str, ...], traces: Path | None
) -> None:
    """Print a row for each number of events, command and checkout."""
    click.echo(Machine.describe("cpu"))
    titles = ("checkout", *_TITLES) if len(checkouts) > 1 else _TITLES
    _print_row(*titles)
    _print_row(*["---"] * len(titles))
    with tempfile.TemporaryDirectory() as folder:
        scale = _Scale(Path(folder), traces or Path(folder), geometry, [path.resolve() for path in checkouts])
        for size in sorted(sizes):
            scale.print_rows(size, commands)


if __name__ == "__main__":
    main()
