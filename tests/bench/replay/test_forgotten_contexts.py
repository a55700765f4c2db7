"""A checked replay forgets contexts that no pool holds, and finds the same: outcomes, faults and evictions."""

import pytest
from traces import TINY, steps_of, synthetic

from kvbench.replay import deferred, histories, tokens
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.passes import Replay, verify_replay
from kvbench.replay.verify import CheckedContent
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import TraceSteps
from kvcache import CacheConfig, make_backend

SEARCHES = 12


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Episodes end, keys repeat, and init caches are cleared now and then."""
    folder = tmp_path_factory.mktemp("forgotten")
    return synthetic(
        folder / "trace", searches=SEARCHES, transpositions=0.4, episode_length=4, clear_ended=True, num_actions=2
    )


def forget_often(monkeypatch, newest=20, rows=10):
    monkeypatch.setattr(histories, "NEWEST", newest)
    monkeypatch.setattr(tokens, "_PLACES", 64)
    monkeypatch.setattr(deferred, "_MOST_ROWS", rows)


def verify(name, steps, **sizes):
    report = Replay(steps, CacheConfig(TINY, **sizes), [name]).verify(name, counted_searches=0)
    return report.outcomes, report.faults, report.evictions


SMALL = {"init_pool_size": 2, "recur_pool_size": 5}
OLD_ROOTS = {"init_pool_size": 40, "recur_pool_size": 3, "eviction_strategy": "lru"}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *((each, SMALL) for each in ("legacy", "legacy-0.2.0", "new:slab", "new:paged", "new:reference")),
        *((each, OLD_ROOTS) for each in ("legacy-0.2.0", "new:slab")),
        ("new:slab", {}),
    ],
)
def test_what_is_found_does_not_depend_on_what_is_forgotten(path, monkeypatch, name, sizes):
    monkeypatch.setattr(histories, "NEWEST", 10**6)
    wanted = verify(name, TraceSteps(TraceReader(path)), **sizes)
    forget_often(monkeypatch)
    assert verify(name, TraceSteps(TraceReader(path)), **sizes) == wanted


def test_memory_does_not_grow_with_the_searches(path, monkeypatch):
    forget_often(monkeypatch)
    kept = []
    original = CheckedContent._forget

    def watched(content):
        original(content)
        known = content._known.histories
        keys = sum(len(each) for each in content._stored.cleared("init"))
        kept.append(len(known) - known._old + len(known._kept) + len(known._by_last_token) + keys)

    monkeypatch.setattr(CheckedContent, "_forget", watched)
    config = CacheConfig(TINY, init_pool_size=2, recur_pool_size=5)
    backend = make_backend("new:slab", config)
    contents = Contents(TINY)
    backend.position_shift = contents.position_shift(config.device, config.dtype)
    verify_replay(backend, steps_of(path), contents, Latents(TINY.embed_dim, "cpu"), counted_searches=0)
    assert len(kept) >= SEARCHES // 4
    assert max(kept) <= 1.5 * max(kept[: len(kept) // 3])
