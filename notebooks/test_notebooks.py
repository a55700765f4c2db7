"""Every notebook runs, uses the library instead of defining things of its own, and is in step with its pair.

Not among the tests that ``pytest`` collects by itself: running them needs what ``tox -e notebooks`` installs.
"""

import ast
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

HERE = Path(__file__).parent
SOURCES = sorted(HERE.glob("[0-9]_*.py"))
SECONDS = 120  # for a cell; on a quiet machine a whole notebook takes some seconds

each_source = pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])


def test_there_are_notebooks():
    assert [source.stem for source in SOURCES] == ["1_tour", "2_traces", "3_capacity", "4_history"]


@each_source
def test_runs(source):
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": HERE}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any(output.output_type in ("execute_result", "display_data") for output in outputs)
    noise = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert noise == []


@each_source
def test_defines_nothing_of_its_own(source):
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    found = [node.lineno for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, definitions)]
    assert found == [], f"{source.name}: what line {found[0]} defines belongs in the library"
    assert "from kvbench" in source.read_text()


@each_source
def test_its_pair_is_the_same_and_holds_no_output(source):
    pair = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    cells = [(cell.cell_type, cell.source) for cell in pair.cells]
    assert cells == [(cell.cell_type, cell.source) for cell in jupytext.read(source).cells], (
        f"run 'jupytext --sync notebooks/{source.name}'"
    )
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in pair.cells)
