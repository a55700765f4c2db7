"""One world model on the old cache and on the new one: the same searches, and the bytes that each reserves."""

from dataclasses import replace

from kvcache import GEOMETRIES
from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig, play

SEARCHES, SIMULATIONS, SEED = 5, 10, 0


def main() -> None:
    shape = replace(GEOMETRIES["cartpole"], num_simulations=SIMULATIONS)
    visits = {}
    for name, settings in {
        "legacy": {},
        "new": {"use_new_cache_manager": True, "cache_storage": "paged"},
    }.items():
        model = WorldModel(WorldModelConfig(shape, **settings))
        visits[name] = [played.result.visit_counts for played in play(model, SEARCHES, SEED, SearchConfig(SIMULATIONS))]
        print(f"{name}: {sum(model.cache.bytes_reserved.values()):,} bytes reserved")
    same = all((one == other).all() for one, other in zip(visits["legacy"], visits["new"], strict=True))
    print(f"the same visits in {SEARCHES} searches: {same}")


if __name__ == "__main__":
    main()
