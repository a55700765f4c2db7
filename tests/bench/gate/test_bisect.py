"""Bisection: the commit that did it, by few answers, in histories with merges and with commits that cannot be built."""

import pytest
from gate.tiny_repository import LIBRARY, commit, git, make_repository

from kvbench.gate.bisect import Answer, CommitGate, CommitRange, NotWorseError, find_suspects, seek
from kvbench.gate.build import GateError
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict

GOOD, BAD, SKIPPED = Answer.GOOD, Answer.BAD, Answer.SKIPPED


def change(repository, path=LIBRARY):
    with (repository / path).open("a") as file:
        file.write("# one more line\n")
    return commit(repository)


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A repository that is only read."""
    return make_repository(tmp_path_factory.mktemp("straight") / "repository")


@pytest.fixture(scope="module")
def line(straight):
    """Its commits, one after the other, all of which change the library."""
    return [git(straight, "rev-parse", "HEAD"), *(change(straight) for _ in range(20))]


class Judge:
    """Bad is what has one of the culprits; what is broken cannot be judged."""

    def __init__(self, repository, *culprits, broken=()):
        self.repository, self.culprits, self.broken = repository, culprits, broken
        self.asked = []

    def __call__(self, name):
        self.asked.append(name)
        if name in self.broken:
            return SKIPPED
        has = set(git(self.repository, "rev-list", name).split())
        return BAD if has & set(self.culprits) else GOOD


def suspects(repository, good, bad, judge):
    return find_suspects(CommitRange(repository, good, bad), judge)


@pytest.mark.parametrize("place", [1, 2, 3, 9, 10, 16, 19, 20])
def test_the_commit_is_found_in_as_many_steps_as_were_told(straight, line, place):
    judge = Judge(straight, line[place])
    found = suspects(straight, line[0], line[-1], judge)
    assert (found.commits, found.good) == ([line[place]], line[place - 1])
    assert CommitRange(straight, line[0], line[-1]).steps == 5
    assert len(judge.asked) <= 5
    assert not {line[0], line[-1]} & set(judge.asked)


def test_only_commits_that_change_the_library_are_measured(repository):
    good = git(repository, "rev-parse", "HEAD")
    others = [change(repository, "pyproject.toml") for _ in range(3)]
    culprit = change(repository)
    others += [change(repository, "pyproject.toml") for _ in range(3)]
    judge = Judge(repository, culprit)
    assert suspects(repository, good, "HEAD", judge).commits == [culprit]
    assert judge.asked == []  # it has the library of the bad one


def test_what_builds_the_library_counts_as_well(repository):
    good = git(repository, "rev-parse", "HEAD")
    (repository / "setup.py").write_text("print('nothing to build')\n")
    culprit = commit(repository)
    last = change(repository)
    assert suspects(repository, good, last, Judge(repository, culprit)).commits == [culprit]


def test_a_change_that_was_taken_back_is_not_measured_again(repository):
    first, _ = git(repository, "rev-parse", "HEAD"), change(repository)
    git(repository, "checkout", "--quiet", first, "--", "kvcache")
    back = commit(repository)
    culprit, last = (change(repository, "kvcache/other.py") for _ in range(2))
    judge = Judge(repository, culprit)
    assert suspects(repository, first, last, judge).commits == [culprit]
    assert back not in judge.asked


@pytest.fixture(scope="module")
def branched(tmp_path_factory):
    """Another one."""
    return make_repository(tmp_path_factory.mktemp("branched") / "repository")


@pytest.fixture(scope="module")
def merged(branched):
    """Two branches of four commits each, merged: the names of the first commit, both branches and the last commit."""
    repository = branched
    first = git(repository, "rev-parse", "HEAD")
    main = git(repository, "symbolic-ref", "--short", "HEAD")
    git(repository, "checkout", "--quiet", "-b", "side")
    side = [change(repository, "kvcache/side.py") for _ in range(4)]
    git(repository, "checkout", "--quiet", main)
    own = [change(repository) for _ in range(4)]
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgsign=false"]
    git(repository, *identity, "merge", "--quiet", "--no-edit", "side")
    return first, side, own, change(repository)


@pytest.mark.parametrize("branch", [1, 2])
@pytest.mark.parametrize("place", [0, 3])
def test_in_a_history_with_merges(branched, merged, branch, place):
    culprit = merged[branch][place]
    judge = Judge(branched, culprit)
    assert suspects(branched, merged[0], merged[3], judge).commits == [culprit]
    assert len(judge.asked) <= 5


def test_commits_that_cannot_be_built_are_skipped(straight, line):
    judge = Judge(straight, line[9], broken=line[4:8])
    found = suspects(straight, line[0], line[-1], judge)
    assert found.commits == [line[9]]


def test_the_order_is_not_that_of_hashes(straight, line):
    """Or else a bisection takes some steps more on one day than on another."""
    found = CommitRange(straight, line[0], line[-1]).candidates([line[0]], line[-1])
    assert [line.index(each) for each in found] == sorted(range(1, 21), key=lambda place: -min(place, 20 - place))


def test_a_long_broken_stretch_is_left_soon(straight, line):
    judge = Judge(straight, line[19], broken=line[3:18])
    assert suspects(straight, line[0], line[-1], judge).commits == [line[19]]
    assert len(judge.asked) <= 7  # one after the other, all fifteen of them would be tried


def test_the_culprit_among_commits_that_cannot_be_built_is_one_of_them(straight, line):
    judge = Judge(straight, line[5], broken=line[4:7])
    found = suspects(straight, line[0], line[-1], judge)
    assert (found.commits, found.good) == (line[4:8], line[3])


class TestRefused:
    def refusal(self, repository, good, bad, kind=GateError):
        with pytest.raises(kind) as raised:
            CommitRange(repository, good, bad)
        return str(raised.value)

    def test_the_wrong_order(self, straight, line):
        assert self.refusal(straight, line[3], line[1]).endswith("GOOD is the older one, and BAD descends from it")

    def test_one_commit(self, straight, line):
        assert "are the same commit" in self.refusal(straight, line[3], line[3])

    def test_branches_beside_each_other(self, branched, merged):
        said = self.refusal(branched, merged[1][3], merged[2][3])
        assert said.endswith(f"try {merged[0][:8]} as GOOD, their last common one")

    def test_no_repository(self, tmp_path):
        assert "is in no git repository" in self.refusal(tmp_path, "HEAD~1", "HEAD")

    @pytest.mark.parametrize("revision", ["nonsense", "--all", "HEAD:kvcache"])
    def test_what_is_no_revision(self, repository, revision):
        assert f"git knows no revision {revision!r}" in self.refusal(repository, revision, "HEAD")

    def test_the_same_library(self, repository):
        change(repository, "pyproject.toml")
        assert "the cause lies elsewhere" in self.refusal(repository, "HEAD~1", "HEAD", NotWorseError)


def row(verdict, benchmark="test_store", metric="time"):
    return Row(benchmark, metric, verdict)


class TestSought:
    """Which answer the gate's rows are."""

    WORSE = row(Verdict.WORSE)

    @pytest.mark.parametrize(
        ("rows", "answer"),
        [
            ([row(Verdict.WORSE)], BAD),
            ([row(Verdict.SAME)], GOOD),
            ([row(Verdict.BETTER)], GOOD),
            ([row(Verdict.NOT_DECIDED)], SKIPPED),
            ([row(Verdict.FAILED, metric="")], SKIPPED),
            ([row(Verdict.NEW, metric="")], SKIPPED),
            ([row(Verdict.GONE, metric="")], SKIPPED),
            ([], SKIPPED),
            ([row(Verdict.SAME), row(Verdict.WORSE, "test_lookup"), row(Verdict.WORSE, metric="copies")], GOOD),
        ],
    )
    def test_what_was_slower(self, rows, answer):
        assert seek([self.WORSE], "time").judge(rows).answer is answer

    @pytest.mark.parametrize(
        ("rows", "answer"),
        [
            ([row(Verdict.FAILED, metric="")], BAD),
            ([row(Verdict.SAME)], GOOD),
            ([row(Verdict.WORSE)], GOOD),
            ([], SKIPPED),
        ],
    )
    def test_what_failed(self, rows, answer):
        assert seek([row(Verdict.FAILED, metric="")], "time").judge(rows).answer is answer

    def test_one_of_several_is_enough_to_be_bad_and_all_are_needed_to_be_good(self):
        sought = seek([self.WORSE, row(Verdict.WORSE, "test_lookup"), row(Verdict.SAME, "test_hash")], "time")
        assert sought.keyword == "test_lookup or test_store"
        assert sought.judge([row(Verdict.SAME), row(Verdict.WORSE, "test_lookup")]).answer is BAD
        assert sought.judge([row(Verdict.SAME), row(Verdict.NOT_DECIDED, "test_lookup")]).answer is SKIPPED
        assert sought.judge([row(Verdict.SAME), row(Verdict.SAME, "test_lookup")]).answer is GOOD

    ALL = "all benchmarks together"

    @pytest.mark.parametrize(
        ("rows", "answer"),
        [
            ([row(Verdict.WORSE, ALL)], BAD),
            ([row(Verdict.SAME, ALL), row(Verdict.NOT_DECIDED)], GOOD),
            ([row(Verdict.NOT_DECIDED, ALL)], SKIPPED),
            ([row(Verdict.SAME), row(Verdict.SAME, "test_lookup"), row(Verdict.WORSE, "test_hash")], GOOD),
            ([row(Verdict.WORSE), row(Verdict.WORSE, "test_lookup"), row(Verdict.SAME, "test_hash")], BAD),
            ([row(Verdict.SAME), row(Verdict.NOT_DECIDED, "test_lookup")], SKIPPED),
            ([], SKIPPED),
        ],
    )
    def test_all_benchmarks_together(self, rows, answer):
        """The gate says of all that they are slower before it knows of each; it says nothing where each is decided."""
        bad = [row(Verdict.WORSE, self.ALL), self.WORSE, row(Verdict.NOT_DECIDED, "test_lookup")]
        sought = seek(bad, "time", keyword="store or lookup")
        assert sought.keyword == "store or lookup"
        assert sought.judge(rows).answer is answer

    def test_what_is_no_benchmark_is_no_keyword(self):
        worse = row(Verdict.WORSE, "kvcache.storage._arrays", "compiled")
        assert seek([worse], "compiled", keyword="store").keyword == "store"
        sought = seek([worse], "compiled")
        assert sought.keyword == ""
        assert sought.judge([row(Verdict.SAME, worse.benchmark, "compiled")]).answer is GOOD

    @pytest.mark.parametrize("name", ["store", "test_store"])
    def test_a_benchmark_is_named_as_tables_have_it(self, name):
        rows = [self.WORSE, row(Verdict.WORSE, "test_restore")]
        assert seek(rows, "time", name).keyword == "test_store"

    def test_what_is_not_worse_is_said(self):
        with pytest.raises(NotWorseError, match=r"not worse than GOOD in time \(same\)") as raised:
            seek([row(Verdict.SAME), row(Verdict.WORSE, metric="copies")], "time")
        assert raised.value.is_decided

    def test_what_is_not_decided_is_said(self):
        with pytest.raises(NotWorseError, match="not decided whether BAD is worse") as raised:
            seek([row(Verdict.SAME), row(Verdict.NOT_DECIDED, "test_lookup")], "time")
        assert not raised.value.is_decided

    def test_a_metric_that_the_benchmark_lacks(self):
        with pytest.raises(GateError, match=r"store has no 'copies' at these commits; what is there: time"):
            seek([self.WORSE, row(Verdict.WORSE, "test_lookup", "copies")], "copies", "store")


def test_a_metric_that_the_gate_does_not_know(tmp_path, straight, line):
    with pytest.raises(GateError, match=r"there is no metric 'speed': choose one of .*time"):
        CommitGate(CommitRange(straight, line[0], line[-1]), "speed", tmp_path, 1)
