"""Result files of ``kvbench search`` with made-up numbers."""

from pathlib import Path

from kvbench.results.decode import write_json
from kvbench.results.search import SearchedBackend, SearchResults
from kvcache import GEOMETRIES

__all__ = ["write_searches"]


def write_searches(path: Path, *names: str, **parts: float | None) -> Path:
    """A file of searches of cartpole: 10 ms, of which the cache takes 2 and the others as given."""
    parts = {"forward_ms_median": 5.0, "tree_ms_median": 2.5, "rest_ms_median": 0.5} | parts
    backends = [
        SearchedBackend(
            name=name,
            search_ms_median=10.0,
            times_faster_median=1.0,
            cache_share_median=0.2,
            cache_ms_median=2.0,
            bytes_reserved=1,
            hits=1,
            misses=0,
            searches_with_the_same_actions=3,
            searches_with_the_same_visits=3,
            largest_difference_of_values=0.0,
            validation=None,
            **parts,
        )
        for name in names
    ]
    content = SearchResults(
        geometry=GEOMETRIES["cartpole"],
        searches=3,
        seed=0,
        recur_slots=None,
        validated=False,
        machine={"cores": 2},
        backends=backends,
        command=["search", "--geometry", "cartpole"],
    )
    write_json(path, content)
    return path
