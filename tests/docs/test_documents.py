"""README and docs: their code runs, their links lead somewhere, their commands exist, their sentences are short."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from statistics import median, quantiles
from types import ModuleType

import click
import pytest
from document_blocks import ROOT, blocks_of

from kvbench.cli import main
from kvcache.integrations.lightzero import SETTINGS

PAGES = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "examples/README.md",
        "benchmarks/gates/README.md",
        "benchmarks/traces/README.md",
    )
] + sorted((ROOT / "docs").glob("*.md"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_WRITE = {"--output", "--json", "--picture", "--graph", "--summary"}  # options that name what a command writes
_READERS = {"FILE", "my_unizero_config.py"}  # files that a reader has


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(language: str) -> list[tuple[str, str]]:
    """The page and the text of every block of code that is meant to run."""
    return [
        (each.page, each.text)
        for page in PAGES
        for each in blocks_of(page)
        if each.language == language and each.is_run
    ]


def _commands() -> list[tuple[str, list[str]]]:
    """Every line of a shell block that calls kvbench."""
    lines = [(page, line) for page, text in _blocks("sh") for line in text.replace("\\\n", " ").splitlines()]
    split = [(page, shlex.split(line, comments=True)) for page, line in lines]
    return [(page, words) for page, words in split if words[:1] == ["kvbench"]]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def prose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prose", ROOT / "docs" / "prose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "text"), _blocks("python"))
def test_code_runs(page, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(text, page, "exec"), {"__name__": "document"})


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    for link in _LINK.findall(page.read_text()):
        target, _, anchor = link.partition("#")
        if not target.startswith(("http:", "https:")):
            path = page.parent / target if target else page
            assert path.exists(), link
            assert not anchor or anchor in _anchors(path), link


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=_name)
def test_a_page_of_the_docs_links_no_file_outside_of_them(page):
    """The built pages would not have it."""
    for link in _LINK.findall(page.read_text()):
        assert link.startswith(("http", "#")) or ".." not in link, link


def _parsed(words: list[str]) -> click.Context:
    """What a command line means; nothing is run."""
    command: click.Command = main
    context = click.Context(main, info_name="kvbench")
    rest = words[1:]
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context = click.Context(found, info_name=found.name, parent=context)
        command = found
    return command.make_context(context.info_name, list(rest))


@pytest.mark.parametrize(("page", "words"), _commands(), ids=lambda each: " ".join(each) if each else None)
def test_commands_parse(page, words, monkeypatch):
    """Options and arguments of every command are those that the command has."""
    monkeypatch.chdir(ROOT)
    _parsed(words)


def _files(words: list[str]) -> tuple[set[str], set[str]]:
    """What a command line reads, and what it writes."""
    context = _parsed(words)
    named: tuple[set[str], set[str]] = set(), set()
    for parameter in context.command.params:
        if isinstance(parameter.type, click.Path):
            value = context.params.get(parameter.name or "")
            given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
            for each in (value if isinstance(value, tuple) else (value,)) if given else ():
                named[_writes(context.command, parameter)].add(str(each))
    return named


def _writes(command: click.Command, parameter: click.Parameter) -> bool:
    return bool(_WRITE & set(parameter.opts)) or (
        isinstance(parameter, click.Argument) and command.name == "synthesize"
    )


@pytest.mark.parametrize("page", sorted({page for page, _ in _commands()}))
def test_commands_of_a_page_run_in_order(page, monkeypatch):
    """What one reads is in the repository or was written by one before it; no two write the same file."""
    monkeypatch.chdir(ROOT)
    written: set[str] = set()
    for words in (words for name, words in _commands() if name == page):
        reads, writes = _files(words)
        missing = [each for each in reads - written - _READERS if not (ROOT / each).exists()]
        assert missing == [], f"{' '.join(words)}: nothing before it writes what it reads"
        assert not writes & written - _READERS, f"{' '.join(words)}: a command before it writes the same file"
        written |= writes


def test_commands_of_every_page_are_found():
    assert {page for page, _ in _commands()} >= {"README.md", "docs/index.md", "benchmarks/traces/README.md"}


def test_the_guide_to_lightzero_has_every_setting_and_its_meaning():
    text = (ROOT / "docs" / "lightzero.md").read_text()
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)) == SETTINGS


def test_source_comments_cite_sections_that_the_contract_has():
    numbers = {heading.split("-")[0] for heading in _anchors(ROOT / "docs" / "contract.md")}
    for package in ("kvcache", "kvbench"):
        for path in (ROOT / package).rglob("*.py"):
            for cited in re.findall(r"SPEC (\d(?:\.\d)?)", path.read_text()):
                assert cited.replace(".", "") in numbers, f"{path}: SPEC {cited}"


def test_prose_is_short(prose):
    """The median sentence has 18 words at most, nine of ten have fewer than 32, on every page; README has 700 words."""
    for page in prose.documents():
        counts = [prose.words(sentence) for sentence in prose.sentences(page.read_text())]
        if len(counts) < 2:
            continue  # a table
        assert median(counts) <= 18, _name(page)
        assert quantiles(counts, n=10)[-1] < 32, _name(page)
    assert prose.words((ROOT / "README.md").read_text()) <= prose.README_WORDS


def test_prose_leaves_out_what_is_no_prose(prose):
    text = (
        "# A heading\n\nOne two. Three [four](a-b.md) five.\n\n```sh\nnot this\n```\n\n| nor | this |\n\n- six seven\n"
    )
    assert prose.sentences(text) == ["One two.", "Three four five.", "six seven"]
