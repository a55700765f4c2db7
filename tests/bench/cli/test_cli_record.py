"""``kvbench record`` where LightZero is not installed; recordings themselves are tested in tests/bench/record."""

import importlib.util

import pytest
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.trace.schema import TraceHeader
from kvcache import Geometry

without_lightzero = pytest.mark.skipif(importlib.util.find_spec("lzero") is not None, reason="LightZero is installed")


def record(*arguments):
    return CliRunner().invoke(main, ["record", "lightzero", *map(str, arguments)])


@without_lightzero
def test_without_lightzero_the_error_says_how_to_get_it(tmp_path):
    result = record("--env", "cartpole", "--output", tmp_path / "trace")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: LightZero 0.2.0 is not installed")
    assert "tox -e lightzero" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--output", "x"], "--env"),
        (["--env", "cartpole"], "--output"),
        (["--env", "chess", "--output", "x"], "'chess' is not"),
        (["--env", "cartpole", "--output", "x", "--searches", "0"], "--searches"),
        (["--env", "cartpole", "--output", "x", "--seed", "-1"], "--seed"),
        (["--env", "cartpole", "--output", "x", "--seed", str(2**32)], "--seed"),
        (["--env", "cartpole", "--output", "x", "--train-steps", "-1"], "--train-steps"),
        (["--env", "cartpole", "--output", "x", "--threads", "0"], "--threads"),
    ],
)
def test_bad_options(arguments, fault):
    result = record(*arguments)
    assert result.exit_code == 2
    assert fault in result.stderr


def test_help_names_what_it_needs():
    result = record("--help")
    assert result.exit_code == 0
    for word in ("LightZero 0.2.0", "Python 3.11", "tox -e lightzero", "--train-steps", "--searches"):
        assert word in " ".join(result.stdout.split())


@pytest.mark.parametrize(("share", "warned"), [(1.0, False), (0.5, False), (0.04, True), (None, False)])
def test_the_share_of_distinct_keys_is_printed_and_a_low_one_warned_of(tmp_path, monkeypatch, share, warned):
    source = {"environment": "CartPole-v0", "version": "0.2.0"} | ({} if share is None else {"distinct_keys": share})
    header = TraceHeader.create(Geometry(), source, synthetic=False)
    monkeypatch.setattr("kvbench.cli.record.record_run", lambda *given, progress: header)
    result = record("--env", "cartpole", "--output", tmp_path / "trace")
    assert result.exit_code == 0
    assert (f"distinct keys: {share or 0:.1%} of the predicted latents" in result.stdout) == (share is not None)
    assert ("warning: most predicted latents share a key" in result.stderr) == warned
