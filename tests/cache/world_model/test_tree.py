"""The arrays that a search's trees are in: NumPy's steps, the compiled ones and plain Python find the same bits."""

import shutil

import numpy as np
import pytest
from python_trees import PendingTree, searched
from test_search import Oracle, World, generators

from kvcache.world_model import Search, SearchConfig, tree, tree_arrays

MODULES = ("tree_arrays", "_tree_arrays")


@pytest.fixture(params=MODULES)
def steps(request, monkeypatch):
    """Each of the two versions, in use."""
    module = pytest.importorskip(f"kvcache.world_model.{request.param}", reason=f"{request.param} is not compiled")
    monkeypatch.setattr(tree, "arrays", module)
    return module


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_the_search_uses_the_compiled_one():
    assert tree.arrays.__name__ == "kvcache.world_model._tree_arrays"


class Alike(World):
    """A world of few numbers, many of them equal: all choices are among ties."""

    def __call__(self, env, path):
        reward, value, logits = super().__call__(env, path)
        return round(reward), float(round(value / 3)), [0.0] * len(logits)


class Nothing(World):
    """A world that says the same of all states."""

    def __call__(self, env, path):
        return 0.0, 0.0, [0.0] * self.actions


class Float32(Oracle):
    """Says what a model does, in its type."""

    def inference(self, envs, paths):
        found = super().inference(envs, paths)
        for name in ("rewards", "values", "policy_logits"):
            object.__setattr__(found, name, getattr(found, name).astype(np.float32))
        return found


CONSTANTS = [{}, {"discount": 1, "pb_c_base": 19}, {"discount": 0, "noise_fraction": 0}, {"pb_c_init": 0.0}]


@pytest.mark.parametrize("world", [World, Alike, Nothing])
@pytest.mark.parametrize(("envs", "actions"), [(1, 1), (3, 2), (8, 6), (5, 17)])
def test_visits_and_values_are_those_of_plain_python(steps, world, envs, actions):
    rows = list(range(envs))
    for seed, constants in enumerate(CONSTANTS[actions % 2 :: 2]):
        config, said = SearchConfig(num_simulations=25, **constants), world(actions, seed)
        oracles = Float32(said), Float32(said)
        roots = [each.inference(rows, [()] * envs) for each in oracles]
        found = Search(oracles[0], config).run(roots[0], generators(envs, seed), rows)
        visits, values, depths = searched(oracles[1], config, roots[1], generators(envs, seed), rows)
        assert np.array_equal(found.visit_counts, visits)
        assert np.array_equal(found.values, values)
        assert np.array_equal(found.depths, depths)


@pytest.mark.parametrize("world", [World, Alike, Nothing])
@pytest.mark.parametrize(
    ("leaves", "envs", "actions"), [(1, 2, 3), (2, 3, 6), (4, 2, 9), (7, 3, 3), (8, 1, 1), (50, 2, 4)]
)
def test_several_leaves_are_those_of_plain_python(steps, world, leaves, envs, actions):
    """Also where two of them are one state, and where the last inference has fewer."""
    rows = list(range(envs))
    for seed, constants in enumerate(CONSTANTS[actions % 2 :: 2]):
        config, said = SearchConfig(num_simulations=25, leaves=leaves, **constants), world(actions, seed)
        oracles = Float32(said), Float32(said)
        roots = [each.inference(rows, [()] * envs) for each in oracles]
        found = Search(oracles[0], config).run(roots[0], generators(envs, seed), rows)
        visits, values, depths = searched(oracles[1], config, roots[1], generators(envs, seed), rows, PendingTree)
        assert np.array_equal(found.visit_counts, visits)
        assert np.array_equal(found.values, values)
        assert np.array_equal(found.depths, depths)
        assert (visits.sum(1) == 25).all()


def test_what_is_no_number_is_chosen_as_in_plain_python(steps):
    """A model that has broken down: the search ends, and each version ends alike."""

    class Broken(World):
        def __call__(self, env, path):
            reward, value, logits = super().__call__(env, path)
            return reward, (np.nan, np.inf, -np.inf)[env] if len(path) == 2 else value, logits

    config, said = SearchConfig(num_simulations=20), Broken(3, 0)
    oracles = Float32(said), Float32(said)
    roots = [each.inference([0, 1, 2], [()] * 3) for each in oracles]
    with np.errstate(all="ignore"):
        found = Search(oracles[0], config).run(roots[0], generators(3), [0, 1, 2])
        visits, values, depths = searched(oracles[1], config, roots[1], generators(3), [0, 1, 2])
    assert np.array_equal(found.visit_counts, visits)
    assert np.array_equal(found.values, values, equal_nan=True)
    assert np.array_equal(found.depths, depths)


class TestCompiled:
    """What the compiled version refuses, since it would write where nothing is."""

    @pytest.fixture
    def compiled(self):
        return pytest.importorskip("kvcache.world_model._tree_arrays", reason="_tree_arrays is not compiled")

    @pytest.fixture
    def arrays(self):
        """Of 2 trees of 5 nodes and 3 actions."""
        shapes = {"counts": (3, 2, 5, 3), "numbers": (3, 2, 5, 3), "bounds": (3, 2), "path": (2, 5, 2), "depths": (2,)}
        shapes["ends"] = (2, 2)
        whole = {"counts", "path", "depths", "ends"}
        return {name: np.zeros(shape, np.int64 if name in whole else np.float64) for name, shape in shapes.items()}

    @pytest.mark.parametrize("name", ["counts", "numbers", "bounds", "path", "depths", "ends"])
    def test_arrays_of_another_type_or_shape(self, compiled, arrays, name):
        for wrong in (arrays[name][..., :1].copy(), arrays[name].astype(np.float32)):
            given = arrays | {name: wrong}
            with pytest.raises(ValueError, match="another type or shape"):
                compiled.select(*given.values(), 1.0, 20.0, 1.0)

    @pytest.mark.parametrize(("index", "child"), [((2, 0, 0, 0), 5), ((2, 0, 0, 0), -1)])
    def test_children_that_are_not_there(self, compiled, arrays, index, child):
        arrays["counts"][index] = child
        with pytest.raises(IndexError, match=f"node {child} is not in 0..4"):
            compiled.select(*arrays.values(), 1.0, 20.0, 1.0)

    def test_trees_that_are_none(self, compiled, arrays):
        arrays["counts"][2, 0, 1] = 1  # its own child
        arrays["counts"][2, 0, 0] = 1
        with pytest.raises(IndexError, match=r"depth 5 is not in 0\.\.4"):
            compiled.select(*arrays.values(), 1.0, 20.0, 1.0)

    @pytest.mark.parametrize(("name", "value"), [("depths", 6), ("depths", -1), ("path", 5), ("path", -1)])
    def test_paths_that_lead_nowhere(self, compiled, arrays, name, value):
        arrays["depths"][:] = 1
        arrays[name][:] = value
        with pytest.raises(IndexError, match=f"{value} is not in 0.."):
            compiled.backup(*list(arrays.values())[:5], 1.0, 1, np.zeros(2), np.zeros(2))

    def test_arguments_that_are_missing_or_no_numbers(self, compiled, arrays):
        with pytest.raises(TypeError, match="select takes 9 arguments, got 1"):
            compiled.select(1)
        with pytest.raises(TypeError, match="backup takes 9 arguments, got 0"):
            compiled.backup()
        with pytest.raises(TypeError):
            compiled.select(*arrays.values(), "1", 20.0, 1.0)
        with pytest.raises(ValueError, match="another type or shape"):
            compiled.backup(*list(arrays.values())[:5], 1.0, 1, np.zeros(3), np.zeros(2))

    @pytest.mark.parametrize("seed", range(20))
    def test_any_numbers_are_the_same_bits_as_in_numpy(self, compiled, seed):
        """Also where visits are pending."""
        rng = np.random.default_rng(seed)
        rows, nodes, actions = rng.integers(1, 9, 3)
        visits, pending = rng.integers(0, 4, (2, rows, nodes, actions))
        children = np.where(np.arange(nodes)[:, None] + 1 < nodes, np.arange(nodes)[:, None] + 1, 0)
        children = children * rng.integers(0, 2, (rows, nodes, actions))
        bounds = np.sort(rng.normal(size=(3, rows)), 0) * rng.integers(0, 2)
        arrays = [np.stack([visits, pending, children]), rng.normal(size=(3, rows, nodes, actions)), bounds]
        arrays += [np.zeros((rows, nodes, 2), np.int64), np.zeros(rows, np.int64), np.zeros((rows, 2), np.int64)]
        outcomes = []
        for module in (tree_arrays, compiled):
            own = [each.copy() for each in arrays]
            module.select(*own, 0.997, 19652.0, 1.25)
            module.backup(*own[:5], 0.997, int(nodes) - 1, bounds[0] + 1, bounds[1] - 1)
            outcomes.append(own)
        for one, other in zip(*outcomes, strict=True):
            assert np.array_equal(one, other)
