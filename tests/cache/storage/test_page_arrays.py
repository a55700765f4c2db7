"""The arithmetic of paged storage: NumPy's and the compiled one do the same to the same arrays."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcache.kernels import NULL_PAGE, ZERO_PAGE
from kvcache.storage import page_arrays, paged

PAGES, ENTRIES, LONGEST, OWNERS = 40, 7, 6, 3
MOST = 2**63 - 1


@pytest.fixture(scope="module", autouse=True)
def compiled():
    return pytest.importorskip("kvcache.storage._page_arrays")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_storage_uses_the_compiled_one():
    assert paged.arrays.__name__ == "kvcache.storage._page_arrays"


def test_both_have_the_same_zero_page_and_null_page(compiled):
    assert (compiled.ZERO_PAGE, compiled.NULL_PAGE) == (ZERO_PAGE, NULL_PAGE)


class State:
    """Entries, some empty, whose tables share pages; the pages' columns; and which are free."""

    def __init__(self, seed):
        rng = self.rng = np.random.default_rng(seed)
        self.sizes = [0, *rng.integers(0, LONGEST + 1, ENTRIES - 1).tolist()]
        self.tables = np.zeros((ENTRIES, LONGEST + 1), dtype=np.int64)
        used = rng.permutation(np.arange(2, PAGES))[:20]
        for table, size in zip(self.tables, self.sizes, strict=True):
            table[LONGEST - size : LONGEST] = rng.choice(used, size, replace=False)
        self.references = np.bincount(self.tables.ravel(), minlength=PAGES)
        self.references[ZERO_PAGE] = 0
        self.serials = rng.permutation(100)[:PAGES]
        self.serials[ZERO_PAGE] = 0
        self.owners = rng.integers(0, OWNERS, PAGES)
        self.charges = rng.integers(50, 99, OWNERS)
        unused = [page for page in range(2, PAGES) if not self.references[page]]
        self.free_count = len(unused)
        self.free = np.zeros(PAGES, dtype=np.int64)
        self.free[: self.free_count] = rng.permutation(unused)
        self.owner_of = rng.integers(0, OWNERS, ENTRIES).tolist()


def both(compiled, name, *arguments):
    """What a function returned and made of its arguments, by either module."""
    outcomes = []
    for module in (page_arrays, compiled):
        own = [each.copy() if isinstance(each, np.ndarray) else each for each in arguments]
        outcomes.append((getattr(module, name)(*own), own))
    return outcomes


def assert_same(outcomes):
    (returned, arrays), (other, others) = outcomes
    assert returned == other
    for left, right in zip(arrays, others, strict=True):
        assert np.array_equal(left, right)


seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 5), st.booleans())
def test_inherit(compiled, seed, rows, alike):
    state = State(seed)
    rng = state.rng
    parents = rng.integers(0, ENTRIES, rows).tolist()
    if alike:  # as most batches are: all contexts grow by as much
        counts = [min(state.sizes[parent] + 2, LONGEST) for parent in parents]
        first = [state.sizes[parent] + 2 - count for parent, count in zip(parents, counts, strict=True)]
    else:
        counts = rng.integers(0, LONGEST + 1, rows).tolist()
        first = rng.integers(0, 4, rows).tolist()
    written = np.full((rows, LONGEST + 1), -7)
    outcomes = both(compiled, "inherit", state.tables, state.references, state.sizes, parents, first, counts, written)
    assert_same(outcomes)
    new, (_, references, *_, tables) = outcomes[1]
    for table, parent, at, count, fresh in zip(tables, parents, first, counts, new, strict=True):
        size = state.sizes[parent]
        kept = state.tables[parent, LONGEST - size : LONGEST].tolist()[at : at + count]
        assert table[LONGEST - count : LONGEST].tolist() == kept + [ZERO_PAGE] * fresh
        assert not table[: LONGEST - count].any()
    held = np.bincount(tables.ravel(), minlength=PAGES)
    held[ZERO_PAGE] = 0
    assert (references - state.references == held).all()


@pytest.mark.parametrize("spread", [1, 3, 15, 16, 17, 40])
@pytest.mark.parametrize("number", [0, 1, 31, 32, 33, 34, 700])
def test_many_pages_come_free_in_order_wherever_they_lie(compiled, number, spread):
    rng = np.random.default_rng(number)
    among = max(2, number * spread) + 2
    pages = rng.permutation(np.arange(2, among))[:number].astype(np.int64)
    references = np.bincount(pages, minlength=among).astype(np.int64)
    owners, charges, free = np.zeros(among, np.int64), np.array([number]), np.zeros(among, np.int64)
    outcomes = both(compiled, "release", pages, references, owners, charges, free, 0)
    assert_same(outcomes)
    assert outcomes[1][1][4][:number].tolist() == sorted(pages.tolist(), reverse=True)


@given(seeds, st.integers(0, ENTRIES))
def test_release(compiled, seed, entries):
    state = State(seed)
    pages = state.tables[:entries].ravel()
    columns = state.references, state.owners, state.charges, state.free
    outcomes = both(compiled, "release", pages, *columns, state.free_count)
    assert_same(outcomes)
    count, (_, references, owners, charges, free, _) = outcomes[1]
    freed = free[state.free_count : count].tolist()
    assert freed == sorted((page for page in set(pages) - {ZERO_PAGE} if not references[page]), reverse=True)
    assert (state.charges - charges).tolist() == np.bincount(owners[freed], minlength=OWNERS).tolist()
    left = np.bincount(state.tables[entries:].ravel(), minlength=PAGES)
    left[ZERO_PAGE] = 0
    assert references.tolist() == left.tolist()


@given(seeds, st.integers(1, 4))
def test_place(compiled, seed, rows):
    state = State(seed)
    entries = state.rng.permutation(ENTRIES)[:rows].tolist()
    new = state.rng.integers(0, 4, rows).tolist()
    inherited = state.tables[state.rng.integers(0, ENTRIES, rows)]
    columns = state.references, state.serials, state.owners, state.charges, state.free
    outcomes = both(
        compiled, "place", state.tables, inherited, entries, new, state.owner_of, *columns, state.free_count, 1000,
        np.full((max(new), rows), -7),
    )  # fmt: skip
    assert_same(outcomes)
    _, (tables, *_, targets) = outcomes[1]
    taken = [page for page in targets.ravel().tolist() if page != NULL_PAGE]
    assert taken == state.free[: state.free_count][::-1][: sum(new)].tolist()
    serials, owners = outcomes[1][1][6], outcomes[1][1][7]
    assert serials[taken].tolist() == list(range(1000, 1000 + len(taken)))
    for row, (entry, fresh) in enumerate(zip(entries, new, strict=True)):
        tokens = targets[len(targets) - fresh :, row]
        assert tables[entry, LONGEST - fresh : LONGEST].tolist() == tokens.tolist()
        assert tables[entry, : LONGEST - fresh].tolist() == inherited[row, : LONGEST - fresh].tolist()
        assert (owners[tokens] == state.owner_of[entry]).all()


@given(seeds, st.integers(1, 4))
def test_find_changed(compiled, seed, rows):
    state = State(seed)
    entries = state.rng.integers(0, ENTRIES, rows).tolist()
    sizes = [state.sizes[entry] for entry in entries]
    longest = max(sizes)
    held = np.where(state.rng.random((LONGEST, rows)) < 0.5, 0, state.rng.choice(state.serials, (LONGEST, rows)))
    index, changed = np.full((longest, rows), -7), np.full(longest * rows, -7)
    outcomes = both(compiled, "find_changed", state.tables, state.serials, entries, sizes, held, index, changed)
    assert_same([(count, [*arrays[:-1], arrays[-1][:count]]) for count, arrays in outcomes])
    count, (*_, holds, index, changed) = outcomes[1]
    for row, (entry, size) in enumerate(zip(entries, sizes, strict=True)):
        pages = state.tables[entry, LONGEST - size : LONGEST].tolist() + [ZERO_PAGE] * (longest - size)
        assert index[:, row].tolist() == pages
        assert holds[:longest, row].tolist() == state.serials[pages].tolist()
    differs = holds != held
    row_by_row = [line * rows + row for row in range(rows) for line in range(LONGEST) if differs[line, row]]
    assert changed[:count].tolist() == row_by_row


class TestChecks:
    """Compiled code raises for wrong arguments, and changes nothing."""

    @pytest.fixture
    def state(self):
        return State(0)

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"parents": [ENTRIES]}, IndexError, f"parent {ENTRIES} is not in 0..{ENTRIES - 1}"),
            ({"parents": [-1]}, IndexError, "parent -1"),
            ({"counts": [LONGEST + 1]}, IndexError, "count 7 is not in 0..6"),
            ({"counts": [1, 2]}, ValueError, "counts has 2 items for 1 rows"),
            ({"first": 3}, TypeError, "first must be a list or tuple"),
            ({"parents": ["a"]}, TypeError, "integer"),
            ({"sizes": []}, IndexError, "item 1 is not in"),
            ({"sizes": [0, MOST]}, IndexError, f"size {MOST} is not in 0..6"),
            ({"sizes": [0, -MOST - 1]}, IndexError, f"size {-MOST - 1} is not in 0..6"),
            ({"first": [MOST]}, IndexError, f"first {MOST} is not in 0..6"),
            ({"first": [-MOST - 1]}, IndexError, f"first {-MOST - 1} is not in 0..6"),
            ({"first": [MOST + 1]}, OverflowError, "int"),
            ({"counts": [MOST]}, IndexError, f"count {MOST} is not in 0..6"),
            ({"parents": [MOST]}, IndexError, f"parent {MOST} is not in"),
            ({"tables": np.zeros((ENTRIES, LONGEST + 1), dtype=np.int32)}, ValueError, "expected 2-dimensional int64"),
            ({"tables": np.zeros((ENTRIES, LONGEST + 1))}, ValueError, "got 2-dimensional 'd'"),
            ({"references": np.zeros((2, 2), dtype=np.int64)}, ValueError, "expected 1-dimensional"),
            ({"references": np.zeros(1, dtype=np.int64)}, IndexError, "page"),
            ({"inherited": np.zeros((1, 3), dtype=np.int64)}, ValueError, "not as long as"),
            ({"tables": np.zeros((ENTRIES, 2 * LONGEST + 2), dtype=np.int64)[:, ::2]}, ValueError, "contiguous"),
        ],
    )
    def test_inherit(self, compiled, state, change, error, words):
        state.sizes[1] = 3
        state.tables[1, LONGEST - 3 : LONGEST] = [5, 6, 7]
        arguments = {
            "tables": state.tables, "references": state.references.copy(), "sizes": state.sizes, "parents": [1],
            "first": [0], "counts": [5], "inherited": np.zeros((1, LONGEST + 1), dtype=np.int64),
        }  # fmt: skip
        with pytest.raises(error, match=words):
            compiled.inherit(*(arguments | change).values())
        assert (arguments["references"] == state.references).all()

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"pages": np.array([PAGES])}, IndexError, f"page {PAGES}"),
            ({"charges": np.zeros(0, dtype=np.int64)}, IndexError, "owner"),
            ({"free_count": PAGES + 1}, IndexError, "free_count"),
            ({"free_count": PAGES}, IndexError, "more pages are free than there are"),
        ],
    )
    def test_release(self, compiled, state, change, error, words):
        page = int(np.flatnonzero(state.references == 1)[0])
        arguments = {
            "pages": np.array([page]), "references": state.references, "owners": state.owners,
            "charges": state.charges, "free": state.free, "free_count": state.free_count,
        }  # fmt: skip
        with pytest.raises(error, match=words):
            compiled.release(*(arguments | change).values())

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"entries": [ENTRIES]}, IndexError, f"entry {ENTRIES}"),
            ({"new": [3]}, IndexError, "number of new tokens 3 is not in 0..2"),
            ({"free_count": 1}, IndexError, "2 pages are needed, 1 are free"),
            ({"free": np.full(PAGES, PAGES)}, IndexError, f"page {PAGES} is not in"),
            ({"charges": np.zeros(0, dtype=np.int64)}, IndexError, "owner"),
            ({"targets": np.zeros((2, 3), dtype=np.int64)}, ValueError, "do not fit together"),
            ({"serial": "x"}, TypeError, "int"),
            ({"serial": MOST - 1}, IndexError, f"serial {MOST - 1} is not in"),
            ({"serial": -1}, IndexError, "serial -1 is not in"),
            ({"new": [MOST]}, IndexError, f"number of new tokens {MOST} is not in 0..2"),
            ({"free_count": MOST}, IndexError, f"free_count {MOST} is not in"),
        ],
    )
    def test_place(self, compiled, state, change, error, words):
        arguments = {
            "tables": state.tables.copy(), "inherited": np.zeros((1, LONGEST + 1), dtype=np.int64), "entries": [1],
            "new": [2], "owner_of": state.owner_of, "references": state.references.copy(), "serials": state.serials,
            "owners": state.owners, "charges": state.charges, "free": state.free, "free_count": state.free_count,
            "serial": 1000, "targets": np.zeros((2, 1), dtype=np.int64),
        }  # fmt: skip
        with pytest.raises(error, match=words):
            compiled.place(*(arguments | change).values())
        assert (arguments["tables"] == state.tables).all()
        assert (arguments["references"] == state.references).all()

    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"entries": [ENTRIES]}, IndexError, f"entry {ENTRIES}"),
            ({"sizes": [LONGEST + 1]}, IndexError, "size 7"),
            ({"serials": np.zeros(1, dtype=np.int64)}, IndexError, "page"),
            ({"changed": np.zeros(1, dtype=np.int64)}, ValueError, "do not fit together"),
            ({"held": np.zeros((1, 1), dtype=np.int64)}, ValueError, "do not fit together"),
        ],
    )
    def test_find_changed(self, compiled, state, change, error, words):
        entry = int(np.argmax(state.sizes))
        arguments = {
            "tables": state.tables, "serials": state.serials, "entries": [entry], "sizes": [2],
            "held": np.zeros((LONGEST, 1), dtype=np.int64), "index": np.zeros((2, 1), dtype=np.int64),
            "changed": np.zeros(2, dtype=np.int64),
        }  # fmt: skip
        with pytest.raises(error, match=words):
            compiled.find_changed(*(arguments | change).values())
        assert not arguments["held"].any()

    def test_counters_at_their_ends_wrap(self, compiled):
        """As in NumPy: the columns are the caller's, and no number in them is undefined behaviour."""
        references, charges = np.array([0, 0, -MOST - 1]), np.array([-MOST - 1])
        columns = references, np.zeros(3, dtype=np.int64), charges, np.zeros(3, dtype=np.int64)
        assert compiled.release(np.array([2]), *columns, 0) == 0
        assert references[2] == MOST

    @pytest.mark.parametrize("name", ["inherit", "release", "place", "find_changed"])
    def test_arguments_are_counted(self, compiled, name):
        with pytest.raises(TypeError, match=f"{name} takes"):
            getattr(compiled, name)(1)
