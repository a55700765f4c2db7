"""Every notebook runs, uses the library instead of defining things of its own, and its pair keeps its outputs.

Not among the tests that ``pytest`` collects by itself: running them needs what ``tox -e notebooks`` installs.
"""

import ast

import jupytext
import nbformat
import pytest
from keep_outputs import SOURCES, executed

LARGEST = 400_000  # bytes of a notebook with its pictures

each_source = pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_there_are_notebooks():
    names = ["1_tour", "2_traces", "3_capacity", "4_history", "5_will_my_run_gain"]
    assert [source.stem for source in SOURCES] == names


@each_source
def test_runs(source):
    outputs = outputs_of(executed(source))
    assert any("image/png" in output.get("data", {}) for output in outputs)
    noise = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert noise == []


@each_source
def test_defines_nothing_of_its_own(source):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    found = [node.lineno for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, definitions)]
    assert found == [], f"{source.name}: what line {found[0]} defines belongs in the library"
    assert "from kvbench" in source.read_text()


@pytest.fixture
def pair(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@each_source
def test_its_pair_is_the_same(source, pair):
    cells = [(cell.cell_type, cell.source) for cell in pair.cells]
    assert cells == [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells], (
        f"run 'python notebooks/keep_outputs.py notebooks/{source.name}'"
    )


@each_source
def test_its_pair_keeps_the_outputs_of_one_run(source, pair):
    code = [cell for cell in pair.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = [output for output in outputs_of(pair) if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2
    assert not any(
        output.output_type in ("error", "stream") and output.get("name") != "stdout" for output in outputs_of(pair)
    )
    assert source.with_suffix(".ipynb").stat().st_size <= LARGEST


@each_source
def test_what_its_pair_shows_is_not_of_one_machines_memory(source, pair):
    """No address of an object, and no folder of whoever ran it."""
    texts = [str(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs_of(pair)]
    assert [text for text in texts if " at 0x" in text or "/tmp/" in text or "/home/" in text] == []
