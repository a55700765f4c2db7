"""Coverage-guided fuzzing of what reads files that others wrote: JSON, TOML, and headers and events of traces.

    python tests/reliability/fuzz_readers.py --seconds 300

It needs atheris (Python 3.11 or 3.12) beside kvbench. Prints how many inputs ran, and ends with 1 at the first that is
neither read nor refused in one line; atheris then writes it to a file.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "bench")]

with atheris.instrument_imports(include=["kvbench.results", "kvbench.parse", "kvbench.text", "kvbench.gate.thresholds",
                                         "kvbench.trace", "kvbench.history", "kvbench.report.input_files", "json",
                                         "tomllib"]):  # fmt: skip
    import json

    from reliability import documents

    from kvbench.errors import KvbenchError
    from kvbench.gate.thresholds import Thresholds
    from kvbench.history.commits import Commits
    from kvbench.history.series import read_history
    from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
    from kvbench.report.input_files import read_benchmarks, read_replays
    from kvbench.results.asv import load_durations
    from kvbench.results.decode import LeftOut, read_json
    from kvbench.results.gate import GateResults
    from kvbench.results.profile import INDEX, read_profile_index
    from kvbench.results.search import SearchResults
    from kvbench.results.training import TrainingResults
    from kvbench.text import clean_lines
    from kvbench.trace.reader import TraceReader
    from kvbench.trace.schema import TraceHeader
    from kvcache import GEOMETRIES

MOST_SECONDS, MOST_MEGABYTES = 20, 3000  # of one input


class Readers:
    """Each reads the bytes from one folder; the first byte of an input says which."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "file"
        documents.asv_folder(folder / "results")
        self.result = next(iter(sorted((folder / "results" / "vm").glob("*-env.json"))))
        self.readers = [
            self.asv, read_replays, read_benchmarks, self.training, self.gate, self.search, self.profile, self.toml,
            self.header, self.trace,
        ]  # fmt: skip
        self.bases = [
            documents.RESULT, documents.REPLAYS, documents.BENCHMARKS, documents.TRAINING, documents.GATE,
            documents.SEARCH, documents.PROFILE, documents.TOML, documents.HEADER, self._trace(),
        ]  # fmt: skip

    def _trace(self) -> bytes:
        path = self.folder / "trace.parquet"
        for _ in write_synthetic_trace(path, SyntheticSearch(GEOMETRIES["cartpole"], 1, 0)):
            pass
        return path.read_bytes()

    def corpus(self, folder: Path) -> None:
        """Write a good file for each."""
        folder.mkdir()
        for place, base in enumerate(self.bases):
            content = base if isinstance(base, bytes) else json.dumps(base).encode()
            (folder / str(place)).write_bytes(bytes([place]) + content)

    def asv(self, path: Path) -> None:
        self.result.write_bytes(path.read_bytes())
        left_out = LeftOut()
        read_history(self.folder / "results", Commits(), left_out)
        load_durations(self.folder / "results", left_out)
        assert all(line.isprintable() for line in left_out.lines)

    def training(self, path: Path) -> None:
        read_json(path, TrainingResults, "a test")

    def gate(self, path: Path) -> None:
        read_json(path, GateResults, "a test")

    def search(self, path: Path) -> None:
        read_json(path, SearchResults, "a test")

    def profile(self, path: Path) -> None:
        (self.folder / INDEX).write_bytes(path.read_bytes())
        with contextlib.suppress(OSError):  # the command makes one line of it
            read_profile_index(self.folder)

    def toml(self, path: Path) -> None:
        Thresholds.parse(path.read_bytes().decode("utf-8", "replace"), "t")

    def header(self, path: Path) -> None:
        with contextlib.suppress(ValueError):  # which the reader of a trace names
            TraceHeader.from_json(path.read_bytes()).schema()

    def trace(self, path: Path) -> None:
        TraceReader(path).check()

    def __call__(self, data: bytes) -> None:
        """One input."""
        if not data:
            return
        self.path.write_bytes(data[1:])
        message = ""
        try:
            self.readers[data[0] % len(self.readers)](self.path)
        except KvbenchError as error:
            message = clean_lines(str(error))  # as the command does
        assert "\n" not in message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300)
    seconds = parser.parse_args().seconds
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        readers = Readers(Path(folder))
        readers.corpus(Path(folder) / "corpus")
        options = [
            f"-max_total_time={seconds}", f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}",
            "-max_len=65536", "-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={os.getcwd()}/",
            f"{folder}/corpus",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options], readers)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
