"""Commands of kvbench, each in a process forked from one that has imported everything: a kill hits work, not imports.

Run as a script it reads a line of JSON for each command, and answers with two: when it began, and how it ended.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "ForkServer", "left_over"]

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link", "os.symlink")
_OUTPUT = 1_000_000  # bytes of it, at most
_IMPORTED = (
    *(f"kvbench.cli.{name}" for name in ("gate", "profile", "record", "replay", "report", "results", "trace")),
    "kvbench.cli.gate_table", "kvbench.gate.session", "kvbench.report.build", "pytest_benchmark", "scipy.stats",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (minus a signal's number), its output, and what it took."""

    code: int
    printed: str
    said: str
    seconds: float
    changes: int  # of files in its folder: opened to be written, renamed, removed, made

    @property
    def lines(self) -> list[str]:
        """What it said on standard error, without empty lines."""
        return [line for line in self.said.splitlines() if line.strip()]


class ForkServer:
    """The process that forks. Commands run with ``folder`` as their own, temporary files in ``folder/tmp``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(
        self, *command: object, cwd: Path | None = None, signal_after: tuple[int, float] | None = None, **limits: int
    ) -> Ended:
        """Run ``kvbench COMMAND``.

        Args:
            cwd: its working folder.
            signal_after: a signal, and after how many seconds it is sent.
            limits: ``kill_at``: the change of a file that it is killed before; ``file_size``: of the largest file.
        """
        self.start(*command, cwd=cwd, **limits)
        if signal_after is None:
            return self.end()
        number, seconds = signal_after
        time.sleep(seconds)
        return self.end(number)

    def start(self, *command: object, cwd: Path | None = None, **limits: int) -> None:
        """Begin a command, which ``end`` waits for."""
        order = {"argv": [str(each) for each in command], "folder": str(self.folder), "cwd": str(cwd or Path.cwd())}
        print(json.dumps(order | limits), file=self._process.stdin, flush=True)
        self._pid = json.loads(self._line())["pid"]

    def end(self, number: int | None = None) -> Ended:
        """Send a signal to the command that was begun, if one is given, and wait for its end."""
        if number is not None:
            os.kill(self._pid, number)  # until it is waited for, it has its number
        print(file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._line()))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def _line(self) -> str:
        line = self._process.stdout.readline()
        assert line, "the server ended"
        return line


def left_over(folder: Path) -> list[str]:
    """What is unfinished, anywhere in a folder."""
    found = (each.relative_to(folder).as_posix() for each in folder.rglob("*"))
    return sorted(each for each in found if each.endswith((".tmp", ".journal")))


def _serve() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    while line := sys.stdin.readline():
        order = json.loads(line)
        pipes = [_Pipe() for _ in range(3)]
        start = time.monotonic()
        pid = os.fork()
        if not pid:
            _child(order, *(pipe.written for pipe in pipes))
        print(json.dumps({"pid": pid}), file=answers, flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(pid, 0)
        seconds = time.monotonic() - start
        printed, said, changes = (pipe.read() for pipe in pipes)
        ended = Ended(os.waitstatus_to_exitcode(status), printed, said, seconds, len(changes))
        print(json.dumps(vars(ended)), file=answers, flush=True)


class _Pipe:
    """Holds what a process writes until it ends; no file, since the size of those may be limited."""

    def __init__(self) -> None:
        self._read, self.written = os.pipe()
        fcntl.fcntl(self._read, fcntl.F_SETPIPE_SZ, _OUTPUT)
        os.set_blocking(self._read, False)

    def read(self) -> str:
        os.close(self.written)
        with open(self._read, "rb", buffering=0) as file:
            return (file.read(_OUTPUT) or b"").decode()


def _child(order: dict[str, Any], stdout: int, stderr: int, changes: int) -> None:
    code = 1
    try:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        # The server's own streams remember whether their files could seek.
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(order["cwd"])
        if "file_size" in order:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"],) * 2)
        sys.addaudithook(_watch(order["folder"], order.get("kill_at"), lambda: os.write(changes, b".")))
        sys.argv = ["kvbench", *order["argv"]]
        importlib.import_module("kvbench.__main__").main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _watch(folder: str, kill_at: int | None, count: Callable[[], object]) -> Callable[[str, tuple[Any, ...]], None]:
    """Counts changes of files in a folder, and kills the process before one of them."""
    seen, owner = 0, os.getpid()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open":
            changes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            changes = event in _CHANGES
        if not changes or os.getpid() != owner or not str(arguments[0]).startswith(folder):
            return
        if kill_at is not None and seen == kill_at:
            os.kill(owner, signal.SIGKILL)
        seen += 1
        count()

    return hook


if __name__ == "__main__":
    _serve()
