"""The libraries of both sides: taken from the commit and from the working tree, and compiled alike."""

from __future__ import annotations

import compileall
import ctypes
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from kvbench.errors import KvbenchError
from kvbench.files import uninterrupted

__all__ = [
    "BUILD", "END_WITH_PARENT", "LIBRARY", "GateError", "build_sides", "copy_head", "extract_base", "extract_files",
    "run_at_once", "run_git", "run_merged",
]  # fmt: skip

LIBRARY = "kvcache"
BUILD = "setup.py"  # what the library compiles
_BINARY = EXTENSION_SUFFIXES[-1]  # ".so"
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # of Linux
_PYTHON = (".py", ".pyi", _BINARY)
# What git sets for its hooks: it would look in that repository, whatever folder it is given.
_OF_ONE_REPOSITORY = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE",
)  # fmt: skip


class GateError(KvbenchError):
    """What could not be measured, why, and what to do."""


def extract_base(checkout: Path, commit: str, folder: Path) -> None:
    """The library as a commit has it, in the folder of the repository that ``checkout`` is. Raises GateError."""
    listed = run_git(checkout, "ls-tree", "-r", "-z", "--name-only", commit, "--", f"{LIBRARY}/", BUILD)
    names = set(listed.stdout.decode(errors="surrogateescape").split("\0")) - {""}
    if f"{LIBRARY}/__init__.py" not in names:
        raise GateError(f"{commit[:8]} has no {LIBRARY}/: there is nothing to compare with")
    parts = [LIBRARY, BUILD] if BUILD in names else [LIBRARY]
    done = run_git(checkout, "archive", "--format=tar", commit, *parts)
    try:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            left_out = sorted(names - set(archive.getnames()))
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise GateError(f"the {LIBRARY}/ of {commit[:8]} cannot be extracted: {error}") from None
    if left_out:
        fault = f"git archive leaves {left_out[0]} out of {commit[:8]} (export-ignore in .gitattributes)"
        raise GateError(f"{fault}: its library would not be whole")


def extract_files(checkout: Path, commit: str, paths: Iterable[str], folder: Path) -> None:
    """Files and folders as a commit has them, in the folder of the repository that ``checkout`` is; those it has."""
    known = [path for path in paths if run_git(checkout, "cat-file", "-e", f"{commit}:./{path}").returncode == 0]
    if known:
        done = run_git(checkout, "archive", "--format=tar", commit, *known)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")


def copy_head(checkout: Path, folder: Path) -> None:
    """The library as the working tree has it."""
    # What was compiled in the checkout may be older than its source.
    ignored = shutil.ignore_patterns("__pycache__", f"*{_BINARY}")
    shutil.copytree(checkout / LIBRARY, folder / LIBRARY, ignore=ignored)
    if (checkout / BUILD).exists():
        shutil.copy(checkout / BUILD, folder)


def build_sides(sides: Mapping[str, Path], environment: Mapping[str, str]) -> dict[str, list[str]]:
    """Compile what each side's library has to compile, in place; what cannot be is left out, as in an installation.

    Returns:
        The compiled modules of each side. What the head lacks becomes a verdict in ``kvbench.gate.compiled``.

    Raises:
        GateError: a build failed, or the base lacks a module that it has the source of and the head has compiled.
    """
    said = {name: _build(side, environment) for name, side in sides.items()}
    compiled = {name: sorted(_modules(side)) for name, side in sides.items()}
    lacking = [each for each in compiled["head"] if each not in compiled["base"] and _has_source(sides["base"], each)]
    if lacking:
        fault = f"only the base could not be compiled ({', '.join(lacking)}), so times would mean nothing"
        raise GateError(f"{fault}:\n{said['base']}")
    for side in sides.values():
        compileall.compile_dir(side, quiet=2)
    return compiled


def _build(side: Path, environment: Mapping[str, str]) -> str:
    """Run a side's instructions, where it has some and something to compile; what they said."""
    if not (side / BUILD).exists():
        return f"it has no {BUILD}"
    if not any(side.rglob("*.c")):
        return "it has no C source"
    done = run_merged([sys.executable, BUILD, "--quiet", "build_ext", "--inplace"], side, env=dict(environment))
    if done.returncode:
        raise GateError(f"the {side.name}'s {BUILD} failed (exit code {done.returncode}):\n{done.stdout[-2000:]}")
    return done.stdout[-2000:] or f"its {BUILD} says nothing"


def _modules(side: Path) -> set[str]:
    """Names of the compiled modules: ``kvcache.storage._page_arrays``."""
    found = ((each.relative_to(side).parent, each.name.partition(".")[0]) for each in side.rglob(f"*{_BINARY}"))
    return {".".join([*folder.parts, name]) for folder, name in found if folder.parts[:1] == (LIBRARY,)}


def _has_source(side: Path, module: str) -> bool:
    *folders, name = module.split(".")
    sources = side.joinpath(*folders).glob(f"{name}.*")
    return any(each.suffix not in _PYTHON for each in sources)


def run_merged(
    command: list[str], folder: Path, timeout: float | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command; its ``stdout`` has what it wrote to either stream. It ends when this process does."""
    return run_at_once([(command, options)], folder, timeout)[0]


def run_at_once(
    commands: Iterable[tuple[list[str], Mapping[str, Any]]], folder: Path, timeout: float | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Run commands beside each other, each with options of its own, as ``run_merged`` runs one.

    No thread is started: one that Ctrl-C finds half started could not be ended.
    """
    running: list[subprocess.Popen[str]] = []
    try:
        for command, options in commands:
            with uninterrupted():  # what a signal raises while a process is forked would be lost
                running.append(_start(command, folder, options))
        said = [each.communicate(timeout=timeout)[0] for each in running]
        return [
            subprocess.CompletedProcess(each.args, each.returncode, text)
            for each, text in zip(running, said, strict=True)
        ]
    finally:
        for each in running:
            each.kill()
        for each in running:
            with each:
                pass


def _start(command: list[str], folder: Path, options: Mapping[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=folder, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=END_WITH_PARENT,  # noqa: PLW1509 (one call of C)
        **options,
    )  # fmt: skip


def _end_with_parent() -> None:
    """In a new process: a command that is killed leaves none that goes on measuring, beside the next one's."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


END_WITH_PARENT = _end_with_parent if sys.platform == "linux" else None  # a ``preexec_fn``


def run_git(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[Any]:
    """Run git in a folder, in the repository which that is in."""
    own = {name: value for name, value in os.environ.items() if name not in _OF_ONE_REPOSITORY}
    try:
        return subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, check=False, env=own)
    except FileNotFoundError:
        raise GateError("the gate needs git, which is not installed") from None
