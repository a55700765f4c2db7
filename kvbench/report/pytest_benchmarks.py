"""Results of pytest-benchmark (``--benchmark-json``, ``--benchmark-save``) as plain objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvbench.report.errors import ReportError
from kvbench.report.fields import Fields, read_json
from kvbench.report.text import clean

__all__ = ["BenchmarkFile", "BenchmarkResult", "read_benchmarks"]

STATISTICS = ("min", "q1", "median", "q3", "max")
_MICROSECONDS = 1e6


@dataclass(frozen=True)
class BenchmarkResult:
    """One benchmark: the spread of its rounds, us, and how many there were."""

    name: str
    microseconds: dict[str, float]
    rounds: int


@dataclass(frozen=True)
class BenchmarkFile:
    """One result file: when it was made, of which commit (``-dirty`` with changes), on what.

    ``label`` is what it is called where its name is not enough.
    """

    path: Path
    created: str
    commit: str
    machine: str
    benchmarks: tuple[BenchmarkResult, ...]
    label: str = ""

    @property
    def name(self) -> str:
        """What the file is called, fit to be shown."""
        return self.label or str(clean(self.path.name))


def read_benchmarks(path: str | Path) -> BenchmarkFile:
    """Read one result file; benchmarks of the gate that were only counted, not timed, are left out.

    Raises:
        ReportError: it cannot be read, or is not what pytest-benchmark writes.
    """
    fields = read_json(path)
    if "benchmarks" not in fields or "machine_info" not in fields:
        raise ReportError(fields.path, "not a result of pytest-benchmark (--benchmark-json)")
    found = []
    for each in fields.objects("benchmarks"):
        extra = each.object("extra_info") if "extra_info" in each else None
        if extra is None or extra.anything("timed") is not False:
            stats = each.object("stats")
            spread = {name: _MICROSECONDS * stats.number(name) for name in STATISTICS}
            found.append(BenchmarkResult(each.text("name"), spread, int(stats.number("rounds"))))
    commit = fields.object("commit_info") if "commit_info" in fields else None
    machine = fields.object("machine_info")
    cpu = machine.object("cpu") if "cpu" in machine else machine
    return BenchmarkFile(
        fields.path,
        fields.text("datetime"),
        "" if commit is None else _commit(commit),
        ", ".join(
            f"{called}{found}"
            for called, found in (("", cpu.anything("brand_raw")), ("Python ", machine.anything("python_version")))
            if found is not None
        ),
        tuple(found),
    )


def _commit(fields: Fields) -> str:
    name = str(fields.anything("id") or "")
    return f"{name}-dirty" if name and "dirty" in fields and fields.anything("dirty") else name
