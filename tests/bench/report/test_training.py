"""Pages of training runs: their numbers, curves and verdicts; in a report, and alone in a folder of runs."""

import pytest
from pages import Page, read_csv
from training_files import backend, results

from kvbench.report.training import write_training_page
from kvbench.results.decode import ResultsError, write_json


@pytest.fixture(scope="module")
def runs():
    return results(
        backend("legacy"),
        backend("new:paged-exact", cache_share=0.125),
        backend("new", first_difference="search 7: visits", largest_difference=0.5, returns=[], losses=[]),
    )


@pytest.fixture(scope="module")
def alone(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "training.json"
    write_json(path, runs)
    return write_training_page(path)


def test_the_verdicts_are_read_first(alone):
    text = Page(alone).text
    identical = text.index("new:paged-exact: identical to legacy in every number")
    differs = text.index("new: the first difference to legacy is at search 7: visits. Searched values differ by 0.5 ")
    assert identical < differs < text.index("Curves")


def test_all_numbers_side_by_side(alone):
    rows = {row.pop("quantity"): row for row in Page(alone).rows("training-runs-side")}
    assert rows["cache, % of a search"] == {"legacy": 25.0, "new:paged-exact": 12.5, "new": 25.0}
    assert rows["peak memory of the process, MB"]["legacy"] == 700.0


def test_every_point_is_in_the_data(alone, runs):
    returns = read_csv(next(alone.parent.glob("data/training-return-*.csv")))
    points = [(each["backend"], int(each["environment steps"]), float(each["return"])) for each in returns]
    assert points == [(run.name, *point) for run in runs.backends for point in run.returns]
    (row, *_) = Page(alone).rows("training-loss")
    assert (row["points"], row["first"], row["last"], row["mean of the last 20"]) == (2, 3.5, 3.25, 3.375)


def test_how_it_was_made(alone):
    rows = {row["what"]: row["value"] for row in Page(alone).rows("training-machine")}
    assert rows["processor"] == "a chip"
    assert rows["torch"] == "2.13.0"
    assert rows["--set policy.num_simulations"] == "8"
    assert "kvbench train lightzero --env cartpole" in Page(alone).text


def test_the_front_page_has_each_comparison(made):
    front = made[1]["index"].text
    assert "CartPole-v0, training identical new: identical to legacy in every number" in " ".join(front.split())
    assert "differs new:slab: the first difference to legacy is at search 2" in " ".join(front.split())
    assert "Training on CartPole-v0" in front
    (machine,) = (row for row in made[1]["index"].rows("machines") if row["source"] == "training.json")
    assert machine["machine and versions"] == "processor a chip, cores 2; torch 2.13.0"
    assert machine["command"] == "kvbench train lightzero --env cartpole"


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "training.json").write_text('{"format": "kvcache-replay"}')
    with pytest.raises(ResultsError, match="kvbench train"):
        write_training_page(tmp_path / "training.json")
