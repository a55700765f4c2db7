"""The command that measures imported traces, on small ones."""

import imported as command
import pytest
from request_files import imported


def test_the_sources_are_what_their_formats_say(tmp_path):
    command.write_skewed(tmp_path / "t.bin", 500)
    reader = imported(tmp_path / "again.bin", (tmp_path / "t.bin").read_bytes(), "oracle-general")
    assert (reader.check(), reader.smallest_size) == (500, 4096)
    for form in ("mooncake", "csv", "plain"):
        command.write_lines(tmp_path / form, form, 500)
        assert imported(tmp_path / f"{form}-again", (tmp_path / form).read_bytes(), form).check() == 500


@pytest.mark.slow
def test_no_request_differs(tmp_path, capsys):
    pytest.importorskip("libcachesim", reason="libcachesim has no wheel for this Python")
    command.write_skewed(tmp_path / "t.bin", 2000)
    reader = imported(tmp_path / "again.bin", (tmp_path / "t.bin").read_bytes(), "oracle-general")
    command.print_verdicts(reader.path, (100,))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(command.JUDGES)
    assert all(line.endswith("; 0 of 2,000 differ") for line in lines)
