"""Fills are what they say: how long contexts are, whether they slid, in every geometry. A nearly empty one fails."""

from dataclasses import replace

import pytest
import torch
from traces import TINY

from kvbench.record.fills import FILLS, FilledSearch, root_steps
from kvbench.record.synthetic import write_synthetic_trace
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import ASSEMBLE, CLEAR, ROOT_SIMULATION
from kvbench.trace.steps import read_steps
from kvcache import GEOMETRIES, TOKENS_PER_STEP, CacheConfig, KVCacheManager

SIMULATIONS = 10


def filled(path, geometry, fill, searches=2, seed=0, **options):
    list(write_synthetic_trace(path, FilledSearch(geometry, searches, seed, fill=fill, **options)))
    return path


def contexts(path, geometry):
    """By search: tokens of its roots, ``[env]``, how often each root had slid, and tokens of the extended nodes."""
    sizes, slid, found = {}, {}, {}
    for event in TraceReader(path).events():
        env, size = event["env"], event.get("size")
        if event["kind"] == ASSEMBLE and event["simulation"] == ROOT_SIMULATION:
            first, sizes[env] = geometry.window(size + (TOKENS_PER_STEP if size else 1))
            slid[env] = 0 if size == 0 else slid[env] + (first > 0)
        elif event["kind"] == ASSEMBLE:
            search = found.setdefault(event["search"], (dict(sizes), dict(slid), []))
            search[2].append(size)
    return [
        ([roots[env] for env in sorted(roots)], list(slides.values()), nodes) for roots, slides, nodes in found.values()
    ]


@pytest.fixture(params=GEOMETRIES)
def geometry(request):
    return replace(GEOMETRIES[request.param], num_simulations=SIMULATIONS)


class TestFills:
    """Each fill in each geometry, from the events of a trace."""

    def test_start(self, tmp_path, geometry):
        for roots, slid, _ in contexts(filled(tmp_path / "trace", geometry, "start"), geometry):
            assert roots == [1] * geometry.env_num
            assert not any(slid)

    def test_middle(self, tmp_path, geometry):
        for roots, slid, nodes in contexts(filled(tmp_path / "trace", geometry, "middle"), geometry):
            assert len(set(roots)) == 1
            assert geometry.context_length / 2 - 2 <= roots[0] <= geometry.context_length / 2
            assert not any(slid)
            assert min(nodes) >= roots[0]

    def test_full(self, tmp_path, geometry):
        for roots, slid, nodes in contexts(filled(tmp_path / "trace", geometry, "full"), geometry):
            assert roots == [geometry.context_length - 3] * geometry.env_num
            assert not any(slid)
            assert set(nodes) == {geometry.context_length - 3}  # all of which slide

    def test_sliding(self, tmp_path, geometry):
        path = filled(tmp_path / "trace", geometry, "sliding", searches=3)
        found = contexts(path, geometry)
        for roots, _, nodes in found:
            assert roots == [geometry.context_length - 3] * geometry.env_num
            assert set(nodes) == {geometry.context_length - 3}
        # All tokens of a window have slid: it has, as often as it has steps. Then it slides on.
        steps = geometry.context_length // TOKENS_PER_STEP
        assert [slid for _, slid, _ in found] == [[steps + more] * geometry.env_num for more in range(3)]

    def test_unequal(self, tmp_path, geometry):
        for roots, slid, nodes in contexts(filled(tmp_path / "trace", geometry, "unequal"), geometry):
            assert sorted(roots) == roots
            assert (roots[0], roots[-1]) == (1, geometry.context_length - 3)
            assert len(set(roots)) == min(geometry.env_num, geometry.context_length // TOKENS_PER_STEP - 1)
            assert not any(slid)
            assert (min(nodes), max(nodes)) == (1, geometry.context_length - 3)

    def test_a_new_backend_finds_contexts_of_these_lengths(self, tmp_path, geometry):
        """What is assembled in the cache itself, and not what a trace says about it."""
        shape = replace(geometry, env_num=2, num_simulations=2)
        for fill in FILLS:
            cache = KVCacheManager(CacheConfig(replace(shape, num_layers=1, num_heads=1, embed_dim=8)))
            longest = []
            for step in read_steps(TraceReader(filled(tmp_path / fill, shape, fill, searches=1)).events()):
                cache.lookup(step.envs, step.parents, step.scope)
                cache.assemble()
                longest += [max(cache.keys_values_wm_size_list)] * step.is_recurrent
                for layer in cache.keys_values_wm:
                    new = torch.zeros(len(step.envs), 1, step.tokens, 8)
                    layer.update(new, new)
                cache.store(step.envs, step.keys, step.scope)
            most = geometry.context_length - 3
            assert max(longest) >= {"start": 1, "middle": geometry.context_length / 2 - 2}.get(fill, most), fill
            assert max(longest) <= {"start": 3, "middle": geometry.context_length / 2 + 2}.get(fill, most), fill


def test_rows_of_one_root_inference_have_one_length(tmp_path):
    """LightZero 0.2.0 stores a root's padding as if it were tokens."""
    path = filled(tmp_path / "trace", replace(GEOMETRIES["wide"], num_simulations=1), "unequal", searches=1)
    batches = {}
    for event in TraceReader(path).events():
        if event["kind"] == ASSEMBLE and event["simulation"] == ROOT_SIMULATION:
            batches.setdefault(event["batch"], set()).add(event["size"])
    assert {len(sizes) for sizes in batches.values()} == {1}
    assert len({size for sizes in batches.values() for size in sizes}) > 3


@pytest.mark.parametrize("fill", FILLS)
def test_every_search_is_followed_by_its_clear(tmp_path, fill):
    searching = cleared = 0
    for event in TraceReader(filled(tmp_path / "trace", TINY, fill, searches=3)).events():
        if event["simulation"] >= 0:
            searching = 1
        elif event["kind"] == CLEAR:
            cleared, searching = cleared + searching, 0
    assert (cleared, searching) == (3, 0)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(("context_length", "env_num"), [(3, 2), (4, 1), (5, 3), (9, 2)])
def test_traces_are_sound_and_keys_distinct_also_where_contexts_are_short(tmp_path, context_length, env_num, fill):
    geometry = replace(TINY, context_length=context_length, env_num=env_num)
    path = filled(tmp_path / "trace", geometry, fill, searches=3)
    assert TraceReader(path).check() > 0
    keys = [key for step in read_steps(TraceReader(path).events()) for key in step.keys]
    assert len(set(keys)) == len(keys)


def test_the_header_says_how_to_make_it_again(tmp_path):
    path = filled(tmp_path / "trace", TINY, "middle", seed=3, num_actions=2)
    source = TraceReader(path).header.source
    again = {name: source[name] for name in ("searches", "seed", "num_actions", "transpositions")}
    assert TraceReader(filled(tmp_path / "again", TINY, source["fill"], **again)).digest() == TraceReader(path).digest()


def test_an_unknown_fill_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="unknown fill 'empty': choose one of start, middle, full, sliding, unequal"):
        root_steps(TINY, "empty")
