"""Result files are read as they were written, with the schema version that they have or lack."""

import json

import pytest

from kvbench.results.decode import ResultsError, read_json, write_json
from kvbench.results.gate import GateResults
from kvbench.results.search import SearchResults
from kvcache.geometry import GEOMETRIES

ROW = {
    "benchmark": "a", "metric": "time", "verdict": "same", "base": 1.5, "head": 2, "ratio": 1.0, "low": None,
    "high": None, "pairs": 3, "reason": "",
}  # fmt: skip
GATE = {"base": "abc", "machine": {"cores": 2, "kvcache_compiled": True}, "pairs": 3, "seconds": 1.5, "rows": [ROW]}
SEARCH = {
    "format": "kvcache-search", "geometry": GEOMETRIES["cartpole"].to_dict(), "searches": 1, "seed": 0,
    "recur_slots": None, "validated": False, "machine": {"cores": 2}, "backends": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "kind", "name", "added"),
    [
        (GATE, GateResults, "kvcache-gate", {}),
        (SEARCH, SearchResults, "kvcache-search", {"command": [], "leaves": 1, "eviction": "fifo"}),
    ],
)
class TestVersions:
    def test_a_file_without_a_version_is_of_the_first(self, tmp_path, content, kind, name, added):
        (tmp_path / "old.json").write_text(json.dumps(content))
        found = read_json(tmp_path / "old.json", kind, "a test")
        write_json(tmp_path / "new.json", found)
        written = json.loads((tmp_path / "new.json").read_text())
        assert written == content | added | {"format": name, "schema_version": 1}
        assert read_json(tmp_path / "new.json", kind, "a test") == found

    def test_another_version_is_refused_in_one_line(self, tmp_path, content, kind, name, added):
        (tmp_path / "new.json").write_text(json.dumps(content | {"schema_version": 2}))
        with pytest.raises(ResultsError, match=r"does not know, 2 \(at \$\.schema_version\): give what a test wrote$"):
            read_json(tmp_path / "new.json", kind, "a test")


def test_a_fault_that_a_file_words_stays_one_line(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(GATE | {"format": "two\nlines\x1b"}))
    with pytest.raises(ResultsError) as caught:
        read_json(tmp_path / "a.json", GateResults, "a test")
    assert str(caught.value).isprintable()
