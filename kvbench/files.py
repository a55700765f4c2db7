"""Files and folders that are whole or absent. Whatever kvbench writes or replaces goes through here.

What is unfinished lies beside its place, under a name that says which process writes it:
``.NAME.HOST.PID.START.COUNT.tmp``. A process that is killed leaves it there; the next write in that folder removes it.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import platform
import re
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

__all__ = [
    "ADVICE", "UNFINISHED", "append_whole", "check_writable", "files_whole_or_absent", "folder_whole_or_absent",
    "read_regular", "remove_unfinished", "special_kind", "temporary_folder", "uninterrupted", "whole_or_absent",
]  # fmt: skip

_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a FIFO",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
ADVICE = {
    errno.ENOSPC: "make room and run this again",
    errno.EDQUOT: "make room and run this again",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f) and run this again",
    errno.EACCES: "name a file in another folder, or make it writable",
    errno.ENOENT: "its folder is gone, or nothing was written: run this again",
}
UNFINISHED = re.compile(r"\.(?P<name>.*)\.(?P<host>[0-9a-f]{8})\.(?P<pid>\d+)\.(?P<start>\d+)\.\d+\.tmp", re.DOTALL)
_STOPPING = (int(signal.SIGINT), int(signal.SIGTERM))
_LONGEST = 40  # characters of the file's own name in that of an unfinished one
_COUNT = itertools.count()


def special_kind(path: str | Path) -> str | None:
    """What is at ``path`` where that is no regular file, as "a FIFO"; None for a file, and where nothing is."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return next((kind for is_kind, kind in _KINDS.items() if is_kind(mode)), None)


def read_regular(path: str | Path) -> bytes:
    """The content of a file. What is no regular file is not opened: reading a FIFO waits, a device may never end.

    Raises:
        OSError: there is no such file, it is no regular one, or it cannot be read.
    """
    kind = special_kind(path)
    if kind is not None and kind != "a folder":
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    return Path(path).read_bytes()


@contextmanager
def whole_or_absent(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``; renamed to it when the block ends well, removed when it does not.

    A link stays: what it points to is replaced. The new file has the old one's permissions.

    Raises:
        OSError: the file cannot be written; says what to do. What was there before is as it was.
    """
    target = _target(Path(path))
    with _errors_named(path):
        beside = _beside(target)
    try:
        with _errors_named(path, of=beside):
            yield beside
            with open(beside, "rb") as file:
                os.fsync(file.fileno())
            if target.exists():
                beside.chmod(stat.S_IMODE(target.stat().st_mode))
            os.replace(beside, target)
    finally:
        with suppress(OSError):
            beside.unlink()


def append_whole(path: str | Path, text: str) -> None:
    """Append to a file, which is made where there is none; all of the text or nothing.

    Raises:
        OSError: the file cannot be written; says what to do.
    """
    target = _target(Path(path))
    with _errors_named(path), uninterrupted(), open(target, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        data = memoryview(text.encode())
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            file.truncate(size)
            raise


def check_writable(path: str | Path) -> None:
    """Raise the OSError that writing ``path`` would raise; leaves nothing behind but the folder."""
    target = _target(Path(path))
    with _errors_named(path):
        beside = _beside(target)
        beside.touch()
        beside.unlink()


@contextmanager
def folder_whole_or_absent(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; renamed to it when the block ends well, removed when it does not.

    Raises:
        FileExistsError: there is something at ``path`` already, before the block or after it: it is left as it is.
        OSError: the folder cannot be made.
    """
    path = Path(path)
    _refuse_existing(path)
    beside = _beside(path)
    beside.mkdir()
    try:
        yield beside
        _refuse_existing(path)
        os.rename(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def files_whole_or_absent(folder: str | Path) -> Iterator[Path]:
    """A temporary folder within ``folder``; when the block ends well, its files move to the same places in ``folder``.

    They replace what is there, and all of them do: Ctrl-C waits until they have. When the block does not end well,
    ``folder`` is as it was.

    Raises:
        OSError: a file cannot be written, or a folder is in its place; says what to do.
    """
    folder = Path(folder)
    with _errors_named(folder):
        beside = _beside(folder / "unfinished")
        beside.mkdir()
    try:
        with _errors_named(folder, of=beside):
            yield beside
        with _errors_named(folder), uninterrupted():
            files = sorted(each.relative_to(beside) for each in beside.rglob("*") if each.is_file())
            for file in files:
                _target(folder / file)
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
            for file in files:
                os.replace(beside / file, folder / file)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A folder for temporary files, removed at the end; that of a process that was killed is removed by the next one.

    Raises:
        OSError: it cannot be made.
    """
    with _errors_named(tempfile.gettempdir()):
        folder = _beside(Path(tempfile.gettempdir()).absolute() / purpose)
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A short block that Ctrl-C does not cut: what it does is done when its block ends."""
    waiting: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    for each in _STOPPING if threading.current_thread() is threading.main_thread() else ():  # no other is interrupted
        handler = signal.getsignal(each)
        if callable(handler):
            handlers[each] = handler
            signal.signal(each, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        for number, frame in waiting[:1]:
            handlers[number](number, frame)


def _target(path: Path) -> Path:
    """The file that writing ``path`` replaces: what a link points to. Raises OSError where it must not be replaced."""
    kind = special_kind(path)
    if kind is not None:
        refusal = IsADirectoryError if kind == "a folder" else OSError
        raise refusal(f"{path} is {kind}: name a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path} is read-only: name another file, or make it writable")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _beside(path: Path) -> Path:
    """A temporary name in the same folder, which is made; what dead processes left in it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent)
    pid = os.getpid()
    _, start = _process(pid)
    return path.with_name(f".{path.name[:_LONGEST]}.{_host()}.{pid}.{start}.{next(_COUNT)}.tmp")


def remove_unfinished(folder: Path) -> None:
    """Remove what dead processes of this host left. Another host's may be alive: its files stay."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = UNFINISHED.fullmatch(entry.name)
            if found is None or found["host"] != _host():
                continue
            is_running, start = _process(int(found["pid"]))
            if is_running and start in (0, int(found["start"])):
                continue
            with suppress(OSError):  # another user's
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _host() -> str:
    """This machine's name in eight digits; a container that numbers processes anew is a host of its own."""
    numbering = ""
    with suppress(OSError):
        numbering = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {numbering}".encode()).hexdigest()[:8]


def _process(pid: int) -> tuple[bool, int]:
    """Whether a process is running, and when it started, in ticks since the machine did (0: not known).

    A process number is used again; a number and a start are not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0] not in "ZX", int(fields[19])  # a zombie writes nothing any more
    except OSError:
        if Path("/proc/self/stat").exists():
            return False, 0
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM, 0  # that one is somebody else's
    return True, 0


@contextmanager
def _errors_named(path: str | Path, of: Path | None = None) -> Iterator[None]:
    """The system's errors name ``path`` instead of a temporary file, and say what to do.

    With ``of``, the temporary file or folder, errors of another file stay as they are.
    """
    try:
        yield
    except OSError as error:
        is_other = of is not None and error.filename is not None and not str(error.filename).startswith(str(of))
        if error.errno is None or is_other:  # the first: one of ours
            raise
        kind = type(OSError(error.errno, ""))
        advice = ADVICE.get(error.errno, "name a file in another folder")
        named = kind(f"{path}: cannot be written ({os.strerror(error.errno)}): {advice}")
        named.errno = error.errno
        raise named from error


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists already, and is not overwritten: remove it or name another")
