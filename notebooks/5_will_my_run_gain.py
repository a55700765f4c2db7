# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Will my run gain?
#
# Record 20 searches of your own configuration, and read the answer here. In the environment of `tox -e lightzero`:
#
# `kvbench record lightzero --config my_unizero_config.py --train-steps 1500 --searches 20 --output my.parquet`
#
# It trains first: weights that are not trained give most latents one key, and such a trace shows nothing of the pools.
# Then put the file's name into `TRACE`. The recorded Pong search stands in for it.

# %%
# %matplotlib inline
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from kvbench.capacity.curves import hit_rate_curves, most_entries
from kvbench.measure.machine import Machine
from kvbench.measure.search_split import PARTS, SplitClock, split_search
from kvbench.replay.passes import Replay
from kvbench.replay.result import result_of
from kvbench.replay.summary import describe_trace
from kvbench.report.answers import answers
from kvbench.report.pictures import draw_outcomes, draw_places, draw_search, picture
from kvbench.results.replay import Capacity
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import read_steps
from kvcache import CacheConfig
from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig, play

TRACE = Path("../benchmarks/traces/pong-lightzero-0.2.0-seed0.parquet")
SEARCHES = 4  # more are steadier, and take longer

torch.set_num_threads(1)
machine = str(Machine.describe())
reader = TraceReader(TRACE)
geometry = reader.header.geometry
steps = list(read_steps(reader.events(), searches=SEARCHES))
trace = describe_trace(reader, steps)
print(f"{TRACE.stem}: {SEARCHES} searches of {geometry.env_num} environments, {geometry.context_length} context tokens")

# %% [markdown]
# ## Can this trace answer?
#
# Where few keys are distinct, weights were not trained, and the answers below say little.

# %%
keys = Counter(key for step in steps if step.is_recurrent for key in step.keys)
print(f"{len(keys) / keys.total():.0%} of the stored keys are distinct")

# %% [markdown]
# ## How much faster is the cache, and how much smaller?
#
# Your recorded lookups, asked of both caches and of two storages of the new one. They take turns, step by step.

# %%
backends = ["legacy", "new", "new:paged-resident", "new:slab"]
reports = Replay(steps, CacheConfig(geometry), backends).run(repetitions=2, counted_searches=1)
result = result_of(reports, trace, "cpu", Capacity("default"), counted_searches=1)
picture([result], {"cpu": machine})

# %%
print(*answers(result), sep="\n")

# %% [markdown]
# ## How much faster is a whole search?
#
# The cache is a part of a search. Here kvcache's own model of the same shapes searches on the legacy cache, with random
# weights: the time of each part is real, what it finds is not. On a GPU the parts are others.

# %%
clock = SplitClock()
model = WorldModel(WorldModelConfig(geometry))
whole = split_search(model, SearchConfig(geometry.num_simulations), clock)
searched = list(play(model, 2, 0, search=whole))
share = clock.seconds["cache"] / sum(clock.seconds.values())
figure, axes = plt.subplots(figsize=(8, 1.5))
draw_search(axes, {part: clock.seconds[part] / len(searched) for part in PARTS})

# %% [markdown]
# A part that takes a share *c* of a search and gets *s* times faster makes the search 1 / (1 - c + c / s) times
# as fast.

# %%
faster = pd.Series({name: ratio.median for name, ratio in result.baseline_over_backend.items()}, name="cache")
pd.DataFrame({"cache": faster, "whole search": 1 / (1 - share + share / faster)}).round(2)

# %% [markdown]
# ## How large must the recurrent pool be?
#
# What lookups return with all the entries that a search stores, with a half of them and with a quarter.

# %%
most = most_entries(steps)
sizes = [most, most // 2, most // 4]
replays = [
    result_of(
        Replay(steps, CacheConfig(geometry, recur_pool_size=size), ["legacy", "new"]).run(0, counted_searches=0),
        trace,
        "cpu",
        Capacity(f"recur={size}", recur=size),
    )
    for size in sizes
]
figure, axes = plt.subplots(figsize=(7, 3))
draw_outcomes(axes, replays)

# %%
print(*(sentence for each in replays for sentence in answers(each)), sep="\n")

# %% [markdown]
# Where legacy returns another state's content with a quarter of the entries:

# %%
figure, axes = plt.subplots(figsize=(7, 3))
draw_places(axes, replays[-1].first.timeline, "depth")

# %% [markdown]
# The smallest pool that answers 99 % of the lookups, of sizes 32 entries apart:

# %%
curve = hit_rate_curves(steps, geometry, list(range(32, most + 32, 32)), ["fifo", "priority"])
enough = curve[curve["hit_rate"] >= 0.99].groupby("policy", sort=False).first()
enough[["entries", "bytes", "hit_rate"]]

# %% [markdown]
# ## The answer
#
# The settings for the end of your configuration, and what they change. A miss costs a call of the model: take a pool
# that does not miss, with some room, since later weights repeat fewer keys.

# %%
settings = {
    "new": 'cache_storage="paged"',
    "new:paged-resident": 'cache_storage="paged", cache_resident_batch=True',
    "new:slab": 'cache_storage="slab"',
}
ratios = result.baseline_over_backend
faster_than_new = [name for name in settings if ratios[name].p25 > ratios["new"].p75]  # quartiles apart
best = next(iter(faster_than_new), "new")
cache, new = result.first, next(each for each in result.backends if each.name == best)
memory = sum(new.bytes_reserved.values()) / sum(cache.bytes_reserved.values())
print(f"Take {best}: a search is {1 / (1 - share + share / faster[best]):.2f} times as fast on this machine,")
print(f"with {100 * memory:.0f} % of the cache's memory. {answers(replays[0])[0]}")
print(f"\nworld_model_cfg.update(use_new_cache_manager=True, {settings[best]}, recur_pool_size={most})")
