"""``kvbench comment``: what a reviewer sees first, and what no file can put into a comment."""

import json
import re

import pytest
from click.testing import CliRunner
from report.replay_files import COMMITTED, replay

from kvbench.cli import main
from kvbench.cli.comment_rows import replay_lines
from kvbench.cli.comment_text import MARK, MOST_ROWS
from kvbench.judge.verdict import Verdict
from kvbench.results.decode import convert
from kvbench.results.replay import ReplayResult

BASE, HEAD = "413d2c78692d1eaad59d20782fa25db32a087b38", "661d276bd73f1564de4dbcc7664509213bb2786f"
MACHINE = {"processor": "AMD EPYC", "cores": 2, "python_version": "3.11.7", "kvcache_commit": HEAD}
STORE, LOOKUP, REPLAY = "test_operation[slab-pong-store]", "test_operation[slab-pong-lookup]", "test_replay[paged-pong]"


def row(benchmark, metric, verdict, base=None, head=None, **more):
    return {"benchmark": benchmark, "metric": metric, "verdict": verdict, "base": base, "head": head, **more}


ROWS = [
    row(LOOKUP, "tensor_ops", "same", 2, 2),
    row(LOOKUP, "instructions", "better", 1000, 900),
    row(STORE, "tensor_ops", "worse", 2, 3),
    row(STORE, "time", "worse", 100.0, 130.0, ratio=1.3, low=1.22, high=1.39, pairs=5),
    row(STORE, "instructions", "worse", 409_491, 465_004),
    row(STORE, "bytes_copied", "better", 200, 100),
    row(REPLAY, "", "failed", reason="paged returned | wrong content of @all"),
    row("test_fill[slab]", "time", "not decided", 10.0, 11.0, ratio=1.1, low=0.9, high=1.2, pairs=20),
]


def gate_file(folder, rows=ROWS, **more):
    content = {"base": BASE, "machine": MACHINE, "pairs": 20, "seconds": 341.7, "rows": rows, **more}
    (folder / "gate.json").write_text(json.dumps(content))
    return folder / "gate.json"


def comment(*arguments):
    return CliRunner().invoke(main, ["comment", *map(str, arguments)])


def text_of(*arguments):
    result = comment(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def table(text):
    """The cells of each row of the one table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [place for place, line in enumerate(lines) if line.startswith("| verdict |")] == [0]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_the_worst_is_first_with_its_instructions(tmp_path):
    text = text_of("--gate", gate_file(tmp_path), "--pages", "https://example.org/index.html")
    assert text.splitlines()[:2] == [MARK, "### Worse"]
    assert "661d276b against 413d2c78: 4 benchmarks, 20 pairs of processes, 342 s." in text
    assert "Instructions of 2 benchmarks together: 410,491 before, 465,904 after (+13.50 %)." in text
    rows = table(text)
    assert [cells[:3] for cells in rows] == [
        ["**failed**", "replay[paged-pong]", ""],
        ["**worse**", "operation[slab-pong-store]", "tensor operations (also time, instructions)"],
        ["not decided", "fill[slab]", "time"],
        ["better", "operation[slab-pong-lookup]", "instructions"],
    ]
    assert rows[1][3:] == ["2", "3", "+50.00 %", "+13.56 %"]
    assert rows[2][3:] == ["10.00 us", "11.00 us", "1.100 times (0.900 to 1.200)", ""]
    assert rows[3][3:] == ["1,000", "900", "-10.00 %", "-10.00 %"]
    assert "[Pages with all of it](https://example.org/index.html)" in text


def test_it_says_how_to_measure_the_same_again(tmp_path):
    text = text_of("--gate", gate_file(tmp_path))
    assert f"\n    kvbench gate --base {BASE}\n    kvbench explain 'operation[slab-pong-store]' {BASE}\n" in text
    assert "Measured on AMD EPYC, 2 cores, Python 3.11.7." in text
    assert "](" not in text  # no pages, no link


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [([], "Not worse"), (["same", "better"], "Not worse"), (["not decided"], "Not decided"), (["gone"], "Worse")],
)
def test_one_word_says_it(tmp_path, verdicts, said):
    rows = [row(f"test_{number}", "time", each, 1, 2, ratio=2.0) for number, each in enumerate(verdicts)]
    text = text_of("--gate", gate_file(tmp_path, rows))
    assert text.splitlines()[1] == f"### {said}"
    assert ("Nothing changed." in text) == ("|" not in text) == (not {*verdicts} - {"same"})


def test_twenty_rows_and_what_the_others_are(tmp_path):
    rows = [row(f"test_{number}", "bytes_copied", "better", 100, 100 - number) for number in range(1, 30)]
    rows.append(row("test_late", "bytes_copied", "worse", 100, 101))
    text = text_of("--gate", gate_file(tmp_path, rows))
    found = table(text)
    assert len(found) == MOST_ROWS == 20
    assert [cells[1] for cells in found[:3]] == ["late", "29", "28"]
    assert "10 more rows: 10 better." in text


def test_what_a_file_says_notifies_nobody_and_stays_in_its_cell(tmp_path):
    hostile = "](https://a.b) @all #1 <b>`x`</b> | \x1b[31m"
    rows = [row(hostile, "time", "worse", 1, 2, ratio=2.0, reason=f"{hostile}\n{'long ' * 100}")]
    text = text_of("--gate", gate_file(tmp_path, rows, notes=[hostile], machine={"processor": hostile}))
    (cells,) = table(text)
    assert len(cells) == 7
    for sign in ("@", "#1", "<b", "`", "](", "\x1b"):
        assert all(at == 0 or text[at - 1] == "\\" or sign == "](" for at in _places(text, sign)), sign
    assert r"]\(https" in text
    assert cells[5].endswith(" ...")
    assert len(cells[5]) < 300


def _places(text, sign):
    return [found.start() for found in re.finditer(re.escape(sign), text)]


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    file = tmp_path_factory.mktemp("replayed") / "replay.json"
    options = ["--searches", "1", "--repetitions", "1", "--counted-searches", "1"]
    return replay(COMMITTED, file, *options, "--capacity", "recur=20", "--eviction", "fifo")


def test_a_replay_says_what_the_new_cache_returns_takes_and_holds(replayed):
    content = json.loads(replayed.read_text())
    small = content["replays"][0]["backends"]
    text = text_of("--replay", replayed)
    assert text.splitlines()[1] == "### Not worse"
    rows = {(cells[1], cells[2]): cells for cells in table(text)}
    name = "cartpole-lightzero-0.2.0-seed0, recur=20: legacy to new"
    assert rows[name, "stale hit"] == [
        "better", name, "stale hit", "70.50 %", "0.00 %", "misses: 0.00 % to 70.50 %", "",
    ]  # fmt: skip
    assert (name, "hit") not in rows  # the same
    assert rows[name, "bytes reserved"][3:5] == [f"{sum(each['bytes_reserved'].values()):,}" for each in small]
    ratio = content["replays"][0]["baseline_over_backend"]["new"]["median"]
    assert f"{ratio:.2f} times faster" in rows[name, "recurrent step"][5]
    assert "    kvbench replay " in text


def test_what_a_replay_compares_is_not_found_of_the_commit(tmp_path, replayed):
    rows = [row(LOOKUP, "tensor_ops", "same", 2, 2)]
    content = json.loads(replayed.read_text())
    content["replays"][0]["baseline_over_backend"]["new"].update(p25=0.4, median=0.5, p75=0.6)
    slower = tmp_path / "slower.json"
    slower.write_text(json.dumps(content))
    text = text_of("--gate", gate_file(tmp_path, rows), "--replay", slower)
    assert text.splitlines()[1] == "### Not worse"
    assert "Nothing changed." in text
    assert "Caches in replays: 1 worse, 2 better." in text
    total = content["replays"][0]["backends"][1]["outcomes"]["total"]
    total.update(wrong_content=1, hit=total["hit"] - 1)
    slower.write_text(json.dumps(content))
    text = text_of("--gate", gate_file(tmp_path, rows), "--replay", slower)
    assert text.splitlines()[1] == "### Worse"  # wrong content is wrong, whatever it is compared with


def test_wrong_content_of_a_replay_comes_first_and_is_worse(replayed):
    (one,) = json.loads(replayed.read_text())["replays"]
    total = one["backends"][1]["outcomes"]["total"]
    total.update(wrong_content=1, hit=total["hit"] - 1)
    one["baseline_over_backend"]["new"].update(median=0.5, p25=0.4, p75=0.6)
    lines = sorted(replay_lines(convert("a", one, ReplayResult, "a test")), key=lambda line: line.rank)
    assert [(line.verdict, line.metric) for line in lines[:2]] == [
        (Verdict.FAILED, "wrong content"), (Verdict.WORSE, "recurrent step"),
    ]  # fmt: skip
    assert lines[1].change == "2.00 times slower (ratio 0.40 to 0.60)"


def test_both_are_one_table(tmp_path, replayed):
    text = text_of("--gate", gate_file(tmp_path), "--replay", replayed, "--output", tmp_path / "comment.md")
    assert text == ""
    written = (tmp_path / "comment.md").read_text()
    verdicts = [cells[0] for cells in table(written)]
    assert verdicts[:3] == ["**failed**", "**worse**", "not decided"]
    assert "better" in verdicts[4:]


def test_rows_that_do_not_fit_are_named_and_the_rest_is_told(tmp_path):
    result = comment("--gate", gate_file(tmp_path, [{"benchmark": 1}, *ROWS]))
    assert result.exit_code == 0
    assert "1 result left out" in result.stderr.replace("\n", " ")
    assert len(table(result.stdout)) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to comment on: give --gate or --replay"),
        (["--gate", "gate.json"], "gate.json: no such file"),
        (["--gate", "gate.json", "--pages", "javascript:alert(1)"], "is no web address"),
        (["--gate", "gate.json", "--pages", "https://a b"], "is no web address"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    result = comment(*arguments)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert isinstance(result.exception, SystemExit)
