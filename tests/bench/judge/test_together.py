"""Steps that several series have at one commit: found together, and told only of those that show them."""

import numpy as np
import pytest

from kvbench.judge.changes import Measured, measured_changes
from kvbench.judge.measured import without_noise_of_control
from kvbench.judge.spread import median, medians

BACKENDS = ("private", "slab", "paged", "resident")


def family(rng, factors, commits=40, spread=0.05, place=20):
    """Six cells of four backends, over a control whose noise they share; ``factors`` of one backend, by cell."""
    found = []
    for cell, factor in enumerate(factors):
        control = np.exp(rng.normal(0, spread, commits))
        for backend in BACKENDS:
            values = np.exp(rng.normal(0, spread, commits))
            if backend == "slab":
                values[place:] *= factor
            found.append(Measured(values, control=control, cell=cell, group=backend))
    return found


def told(series):
    return [
        (each.cell, each.group, change.position)
        for each, changes in zip(series, measured_changes(series)[0], strict=True)
        for change in changes
    ]


@pytest.mark.parametrize("place", [8, 20, 32])
def test_a_tenth_in_all_cells_is_found_in_each_at_its_commit(place):
    series = family(np.random.default_rng(place), [1.1] * 6, spread=0.04, place=place)
    found = told(series)
    assert len(found) >= 5
    assert {group for _, group, _ in found} == {"slab"}
    assert len({position for _, _, position in found}) == 1
    assert abs(found[0][2] - place) <= 1


def test_a_cell_that_does_not_show_it_is_not_told():
    found = told(family(np.random.default_rng(0), [1.2] * 5 + [1.0]))
    assert {cell for cell, _, _ in found} == {0, 1, 2, 3, 4}


def test_what_one_cell_has_is_told_of_it_alone():
    assert told(family(np.random.default_rng(1), [2.0] + [1.0] * 5)) == [(0, "slab", 20)]


def test_identical_commits_show_none():
    rng = np.random.default_rng(2)
    assert [told(family(rng, [1.0] * 6)) for _ in range(4)] == [[]] * 4


def test_cells_that_were_not_always_measured():
    series = family(np.random.default_rng(3), [1.2] * 6)
    series[1].values[:12] = np.nan
    series[5].values[25:] = np.nan
    assert {(cell, group, position) for cell, group, position in told(series)} >= {
        (cell, "slab", 20) for cell in range(6)
    }


def test_a_step_that_is_not_known_yet_is_no_noise_of_the_control():
    rng, sizes = np.random.default_rng(4), []
    for _ in range(50):
        series = family(rng, [1.1])
        logs = [each.judged for each in series]
        finer = without_noise_of_control(series, logs, [np.full(40, np.median(each)) for each in logs])[1]
        sizes.append(finer[20:].mean() - finer[:20].mean())
    assert np.mean(sizes) == pytest.approx(np.log(1.1), abs=0.008)


def test_medians_are_those_of_numpy():
    values = np.random.default_rng(5).normal(size=(3, 7, 11))
    values[0, 2:5, 3] = values[1, :, 4] = np.nan
    assert np.isnan(medians(values)[1, 4])
    values[1, :, 4] = 1.0
    np.testing.assert_allclose(medians(values), np.nanmedian(values, axis=-2))
    assert [median(np.arange(number, 0.0, -1)) for number in (1, 4, 5)] == [1.0, 2.5, 3.0]
