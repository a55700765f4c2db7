"""What git knows of commits, and what it does where it cannot."""

import subprocess

import pytest
from asv_files import commit_name
from git_history import make_history

from kvbench.history.commits import Commits, HistoryError, read_commits


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return make_history(tmp_path_factory.mktemp("repository"), ["first", "second <script>", "third", "fourth"], tag=1)


def test_subjects_and_authors_in_order(history):
    folder, names = history
    commits = read_commits(folder)
    assert [each.name for each in commits.known] == names
    assert [each.subject for each in commits.known] == ["first", "second <script>", "third", "fourth"]
    assert {each.author for each in commits.known} == {"somebody"}
    assert commits.find(names[1]).subject == "second <script>"
    assert commits.find(commit_name(3)) is None


def test_subjects_that_hold_separators_and_dates_beyond_the_calendar(tmp_path):
    folder, names = make_history(tmp_path, ["first", "a\x1eb", "c\x1fd\x1ee"])
    raw = "tree {}\nauthor a\x1fb <a@b> 99999999999999999 +0000\ncommitter a <a@b> 99999999999999999 +0000\n\nlate\n"
    git = ["git", "-C", str(folder)]
    tree = subprocess.run([*git, "rev-parse", "HEAD^{tree}"], capture_output=True, text=True, check=True).stdout.strip()
    text = raw.format(f"{tree}\nparent {names[-1]}")
    write = [*git, "hash-object", "-t", "commit", "-w", "--literally", "--stdin"]
    late = subprocess.run(write, input=text, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run([*git, "reset", "--quiet", "--soft", late], check=True)
    commits = read_commits(folder)
    mark = "\N{REPLACEMENT CHARACTER}"
    assert [each.name for each in commits.known] == [*names, late]
    assert [each.subject for each in commits.known] == ["first", f"a{mark}b", f"c{mark}d{mark}e", "late"]


@pytest.mark.parametrize(
    ("since", "new", "described"),
    [
        ("", 2, "since v1"), ("v1", 2, "since v1"), ("1", 1, "in the last commit"), ("2", 2, "in the last 2 commits"),
        ("99", 4, "in all of its 4 commits"), ("HEAD~3", 3, "since HEAD~3"),
    ],
)  # fmt: skip
def test_what_counts_as_new(history, since, new, described):
    folder, names = history
    commits = read_commits(folder, since)
    assert [name for name in names if commits.is_new(name)] == names[len(names) - new :]
    assert commits.described == described
    assert not commits.is_new(commit_name(3))


def test_without_a_tag_the_last_commits_are_new(tmp_path):
    folder, names = make_history(tmp_path, [f"change {number}" for number in range(12)])
    commits = read_commits(folder)
    assert commits.new == set(names[2:])
    assert commits.described == "in the last 10 commits"


def test_a_full_hash_is_shown_short(history):
    folder, names = history
    assert read_commits(folder, names[0]).described == f"since {names[0][:8]}"


@pytest.mark.parametrize("since", ["no-such-tag", "--output=x", "-1"])
def test_a_wrong_revision_is_named(history, since):
    with pytest.raises(HistoryError, match="is no tag, commit or number of commits"):
        read_commits(history[0], since)


def test_new_is_what_git_says_is_new_also_beside_the_main_line(tmp_path):
    folder, names = make_history(tmp_path, ["a", "b", "c"])

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ("git", *who, "-C", folder, *arguments), check=True, capture_output=True, text=True
        ).stdout

    git("checkout", "--quiet", "-b", "side", names[0])
    git("commit", "--quiet", "--allow-empty", "-m", "side")
    side = git("rev-parse", "HEAD").strip()
    git("checkout", "--quiet", names[2])
    assert read_commits(folder, "side").new == set(names[1:])  # no ancestor
    git("merge", "--quiet", "--no-ff", "-m", "merge", "side")
    merge = git("rev-parse", "HEAD").strip()
    assert read_commits(folder, "side").new == {*names[1:], merge}
    assert read_commits(folder, names[1]).new == {names[2], side, merge}
    assert read_commits(folder, "HEAD").new == set()


@pytest.mark.parametrize("since", ["0", "00"])
def test_no_commits_are_no_report(history, since):
    with pytest.raises(HistoryError, match="wants a number from 1 on, or a revision"):
        read_commits(history[0], since)


def test_how_far_behind(history):
    folder, names = history
    assert [read_commits(folder).behind(name) for name in (*names, commit_name(3))] == [3, 2, 1, 0, None]


def test_no_repository(tmp_path):
    assert read_commits(tmp_path) == Commits()
    assert read_commits(tmp_path, "5") == Commits()
    with pytest.raises(HistoryError, match="no git repository"):
        read_commits(tmp_path, "v1")
