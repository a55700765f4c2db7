import pytest

from kvbench.files import folder_whole_or_absent, whole_or_absent


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
