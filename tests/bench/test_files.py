import errno
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from kvbench import files
from kvbench.files import (
    append_whole,
    check_writable,
    files_whole_or_absent,
    folder_whole_or_absent,
    read_regular,
    special_kind,
    temporary_folder,
    uninterrupted,
    whole_or_absent,
)

# A process that is killed in the middle of a write: of a file, of a folder, or of files in one.
KILLED = """
import os, signal
from pathlib import Path
from kvbench import files
with getattr(files, {name!r})({path!r}) as beside:
    (beside / "file" if beside.is_dir() else beside).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
WRITERS = ["whole_or_absent", "folder_whole_or_absent", "files_whole_or_absent"]


def kill_in_the_middle(name, path):
    done = subprocess.run([sys.executable, "-c", KILLED.format(name=name, path=str(path))], check=False)
    assert done.returncode == -signal.SIGKILL


def unfinished(folder):
    return sorted(each.name for each in folder.iterdir() if each.name.endswith(".tmp"))


def write(path, text="new"):
    with whole_or_absent(path) as beside:
        beside.write_text(text)


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with whole_or_absent(path) as beside:
        beside.write_text("whole")
        assert beside.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write_a_part():
        with whole_or_absent(path) as beside:
            beside.write_text("half of the ne")
            raise error

    with pytest.raises(error):
        write_a_part()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_wrote_nothing_is_an_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), whole_or_absent(path):
        pass
    assert path.read_text() == "old"


class TestFolders:
    def test_the_folder_appears_when_the_block_ends(self, tmp_path):
        path = tmp_path / "new" / "folder"
        with folder_whole_or_absent(path) as beside:
            (beside / "file").write_text("whole")
            assert not path.exists()
        assert (path / "file").read_text() == "whole"
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_error_leaves_nothing(self, tmp_path, error):
        def write_a_part():
            with folder_whole_or_absent(tmp_path / "folder") as beside:
                (beside / "file").write_text("half")
                raise error

        with pytest.raises(error):
            write_a_part()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("kind", ["file", "full folder", "empty folder", "dangling link"])
    @pytest.mark.parametrize("when", ["before", "meanwhile"])
    def test_what_is_there_already_stays(self, tmp_path, kind, when):
        path = tmp_path / "folder"

        def put_something_there():
            if kind == "file":
                path.write_text("old")
            elif kind == "dangling link":
                path.symlink_to(tmp_path / "nowhere")
            else:
                path.mkdir()
                if kind == "full folder":
                    (path / "file").write_text("old")

        def write():
            with folder_whole_or_absent(path) as beside:
                (beside / "file").write_text("new")
                put_something_there()

        if when == "before":
            put_something_there()
        with pytest.raises(FileExistsError, match="folder exists already, and is not overwritten"):
            write()
        assert list(tmp_path.iterdir()) == [path]
        assert path.is_symlink() == (kind == "dangling link")
        if kind in ("file", "full folder"):
            assert (path if kind == "file" else path / "file").read_text() == "old"


class TestLeftovers:
    @pytest.mark.parametrize("name", WRITERS)
    def test_what_a_killed_process_left_is_removed_by_the_next_write_in_its_folder(self, tmp_path, name):
        folder = tmp_path / "in" if name == "files_whole_or_absent" else tmp_path
        kill_in_the_middle(name, tmp_path / "in")
        assert len(unfinished(folder)) == 1
        write(folder / "other")
        assert [each.name for each in folder.iterdir() if each.is_file()] == ["other"]
        assert unfinished(folder) == []

    def test_what_a_live_process_writes_is_left_alone(self, tmp_path):
        script = KILLED.format(name="whole_or_absent", path=str(tmp_path / "file"))
        waits = script.replace("os.kill(os.getpid(), signal.SIGKILL)", 'print("there", flush=True); input()')
        process = subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert process.stdout.readline() == b"there\n"
            write(tmp_path / "other")
            assert len(unfinished(tmp_path)) == 1
            process.communicate(b"\n", timeout=30)
        finally:
            process.kill()
        assert (tmp_path / "file").read_text() == "half"
        assert unfinished(tmp_path) == []

    def test_what_this_process_writes_is_left_alone(self, tmp_path):
        with whole_or_absent(tmp_path / "outer") as beside:
            beside.write_text("outer")
            write(tmp_path / "outer", "inner")
            assert beside.read_text() == "outer"
        assert (tmp_path / "outer").read_text() == "outer"

    def test_what_another_host_left_is_left_alone(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(files.platform, "node", lambda: "elsewhere")
            kill_in_the_middle("whole_or_absent", tmp_path / "mine")
            foreign = files._beside(tmp_path / "file")
        foreign = foreign.with_name(foreign.name.replace(f".{os.getpid()}.", ".99999999."))
        foreign.write_text("half")
        write(tmp_path / "other")
        assert unfinished(tmp_path) == [foreign.name]

    def test_a_process_number_that_is_used_again_is_another_process(self, tmp_path):
        own = files._beside(tmp_path / "file")
        earlier = own.with_name(re.sub(rf"\.{os.getpid()}\.\d+\.", f".{os.getpid()}.1.", own.name))
        earlier.write_text("half")
        write(tmp_path / "other")
        assert unfinished(tmp_path) == []

    @pytest.mark.parametrize("name", [".file.tmp", ".a.12.tmp", "x.0123abcd.1.1.1.tmp", ".a.0123abcd.x.1.1.tmp"])
    def test_a_name_of_somebody_elses_is_left_alone(self, tmp_path, name):
        (tmp_path / name).write_text("precious")
        write(tmp_path / "other")
        assert (tmp_path / name).read_text() == "precious"

    def test_a_link_is_removed_and_not_followed(self, tmp_path):
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").write_text("precious")
        name = re.sub(rf"\.{os.getpid()}\.", ".99999999.", files._beside(tmp_path / "file").name)
        (tmp_path / name).symlink_to(tmp_path / "precious")
        write(tmp_path / "other")
        assert unfinished(tmp_path) == []
        assert (tmp_path / "precious" / "file").read_text() == "precious"

    def test_of_a_temporary_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", None)
        kill_in_the_middle("temporary_folder", "purpose")
        assert len(unfinished(tmp_path)) == 1
        with temporary_folder("purpose") as folder:
            assert unfinished(tmp_path) == [folder.name]
            assert folder.stat().st_mode & 0o777 == 0o700
        assert unfinished(tmp_path) == []

    def test_what_may_not_be_removed_hides_no_other(self, tmp_path, monkeypatch):
        names = [files._beside(tmp_path / name).name for name in "abc"]
        for name in names:
            (tmp_path / name.replace(f".{os.getpid()}.", ".99999999.")).touch()
        unlink = os.unlink

        def refuses(path, **options):
            if os.path.basename(path).startswith(".a."):
                raise PermissionError(path)
            unlink(path, **options)

        monkeypatch.setattr(files.os, "unlink", refuses)
        write(tmp_path / "other")
        assert [name.split(".")[1] for name in unfinished(tmp_path)] == ["a"]

    def test_a_long_name_still_has_an_unfinished_one(self, tmp_path):
        path = tmp_path / ("x" * 255)
        write(path)
        assert path.read_text() == "new"


class TestFilesInAFolder:
    def test_all_appear_when_the_block_ends(self, tmp_path):
        folder = tmp_path / "pages"
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "old").write_text("old")
        (folder / "other").write_text("other")
        with files_whole_or_absent(folder) as beside:
            (beside / "data").mkdir()
            (beside / "data" / "old").write_text("new")
            (beside / "index").write_text("new")
            assert (folder / "data" / "old").read_text() == "old"
            assert not (folder / "index").exists()
        texts = {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()}
        assert texts == {"data/old": "new", "index": "new", "other": "other"}

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_error_leaves_all_as_they_were(self, tmp_path, error):
        (tmp_path / "index").write_text("old")
        with pytest.raises(error), files_whole_or_absent(tmp_path) as beside:
            (beside / "index").write_text("new")
            raise error
        assert (tmp_path / "index").read_text() == "old"
        assert os.listdir(tmp_path) == ["index"]

    def test_a_folder_in_the_place_of_one_leaves_all_as_they_were(self, tmp_path):
        (tmp_path / "a").write_text("old")
        (tmp_path / "b").mkdir()
        with (
            pytest.raises(IsADirectoryError, match="b is a folder: name a file"),
            files_whole_or_absent(tmp_path) as beside,
        ):
            (beside / "a").write_text("new")
            (beside / "b").write_text("new")
        assert (tmp_path / "a").read_text() == "old"

    def test_ctrl_c_waits_until_all_have_moved(self, tmp_path, monkeypatch):
        replace, moved = os.replace, []

        def interrupted(source, target):
            signal.raise_signal(signal.SIGINT)
            moved.append(target.name)
            replace(source, target)

        monkeypatch.setattr(files.os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt), files_whole_or_absent(tmp_path) as beside:
            for name in "abc":
                (beside / name).write_text("new")
        assert moved == ["a", "b", "c"]
        assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


class TestWhatIsReplaced:
    @pytest.fixture
    def special(self, tmp_path, request):
        path = tmp_path / "special"
        if request.param == "a FIFO":
            os.mkfifo(path)
        elif request.param == "a folder":
            path.mkdir()
        elif request.param == "a socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        else:
            path.symlink_to("/dev/null")
        return path, request.param

    KINDS = pytest.mark.parametrize("special", ["a FIFO", "a folder", "a socket", "a device"], indirect=True)

    @KINDS
    @pytest.mark.parametrize("use", [write, check_writable, lambda path: append_whole(path, "text")])
    def test_only_a_file_is(self, special, use):
        path, kind = special
        before = os.stat(path)
        with pytest.raises(OSError, match=rf"is {kind}: name a file"):
            use(path)
        assert os.path.samestat(before, os.stat(path))

    @KINDS
    def test_only_a_file_is_read(self, special):
        path, kind = special
        assert special_kind(path) == kind
        with pytest.raises(OSError, match=r"not a file|Is a directory"):
            read_regular(path)

    def test_a_link_stays_and_its_file_is_replaced(self, tmp_path):
        (tmp_path / "there").mkdir()
        link, file = tmp_path / "link", tmp_path / "there" / "file"
        link.symlink_to(file)
        for text in ("first", "second"):
            write(link, text)
            assert link.is_symlink()
            assert file.read_text() == text

    def test_its_permissions_stay(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("old")
        path.chmod(0o600)
        write(path)
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_file_that_is_read_only_stays(self, tmp_path, monkeypatch):
        path = tmp_path / "file"
        path.write_text("old")
        monkeypatch.setattr(files.os, "access", lambda *_: False)  # root may do everything
        with pytest.raises(PermissionError, match="file is read-only: name another file, or make it writable"):
            write(path)
        assert path.read_text() == "old"


class TestErrors:
    @pytest.mark.parametrize(
        ("number", "kind", "advice"),
        [
            (errno.ENOSPC, OSError, "make room and run this again"),
            (errno.EACCES, PermissionError, "name a file in another folder, or make it writable"),
            (errno.EROFS, OSError, "name a file in another folder"),
            (errno.ENOENT, FileNotFoundError, "its folder is gone, or nothing was written: run this again"),
        ],
    )
    def test_the_systems_name_the_file_and_what_to_do(self, tmp_path, number, kind, advice):
        path = tmp_path / "file"
        path.write_text("old")
        with pytest.raises(kind) as raised, whole_or_absent(path) as beside:
            beside.write_text("half")
            raise OSError(number, os.strerror(number), str(beside))
        assert str(raised.value) == f"{path}: cannot be written ({os.strerror(number)}): {advice}"
        assert raised.value.errno == number
        assert path.read_text() == "old"
        assert unfinished(tmp_path) == []

    def test_of_another_file_they_stay_as_they_are(self, tmp_path):
        fault = "No such file or directory: '/nowhere'"
        with pytest.raises(FileNotFoundError, match=fault), whole_or_absent(tmp_path / "file") as beside:
            beside.write_text(Path("/nowhere").read_text())

    def test_a_folder_that_disappears(self, tmp_path):
        path = tmp_path / "folder" / "file"
        with pytest.raises(FileNotFoundError, match="its folder is gone"), whole_or_absent(path) as beside:
            beside.write_text("new")
            beside.unlink()
            path.parent.rmdir()


class TestAppending:
    def test_appends(self, tmp_path):
        for text in ("one\n", "", "two\n"):
            append_whole(tmp_path / "file", text)
        assert (tmp_path / "file").read_text() == "one\ntwo\n"

    def test_a_disk_that_fills_leaves_what_was_there(self, tmp_path):
        code = (
            "import resource\n"
            "from kvbench.files import append_whole\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            f"append_whole({str(tmp_path / 'file')!r}, 'x' * 5000)"
        )
        (tmp_path / "file").write_text("old\n")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "file: cannot be written (File too large): raise the limit" in done.stderr
        assert (tmp_path / "file").read_text() == "old\n"


class TestUninterrupted:
    def test_ctrl_c_comes_when_the_block_ends(self):
        done = []
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")
        assert done == ["whole"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_in_another_thread_nothing_is_changed(self):
        seen = []

        def work():
            with uninterrupted():
                seen.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [signal.default_int_handler]
