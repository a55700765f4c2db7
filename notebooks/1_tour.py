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
# # 1. A tour: record a search, replay it, read the result
#
# A world model asks its KV-cache for the context of a latent state, extends it by one step and stores it again.
# Here a small model of kvcache's own searches for a while, a recorder writes down what it asked, and two caches
# answer the same requests once more: *legacy*, the cache of LightZero, and *new*.

# %%
# %matplotlib inline
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from kvbench.measure.machine import Machine
from kvbench.record.world_model import record_model
from kvbench.replay.passes import Replay
from kvbench.replay.result import result_of
from kvbench.replay.summary import describe_trace
from kvbench.report.answers import answers
from kvbench.report.pictures import draw_places, draw_tree, picture
from kvbench.report.searches import read_searches
from kvbench.results.replay import Capacity
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import read_steps
from kvcache import GEOMETRIES, CacheConfig
from kvcache.world_model import WorldModelConfig

torch.set_num_threads(1)
print(Machine.describe())

# %% [markdown]
# ## Record
#
# The weights are random: the search is a real one, at real shapes, and what it finds has no meaning. On the command
# line this is `kvbench record synthetic-model --geometry cartpole --output my.parquet`, and `kvbench record
# lightzero` for a trained UniZero.

# %%
geometry = replace(GEOMETRIES["cartpole"], num_simulations=10)
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "tour.parquet"
searches = list(record_model(path, WorldModelConfig(geometry, seed=0), searches=10, seed=0))
reader = TraceReader(path)
print(f"{len(searches)} searches, {reader.rows:,} events, recorded on {reader.header.backend!r}")

# %% [markdown]
# A trace holds requests, not answers. The first simulation of a search, for the first two environments:

# %%
events = reader.to_pandas()
first = events[(events["search"] == 1) & (events["simulation"] == 0) & (events["env"] < 2)]
first[["kind", "scope", "env", "key", "parent", "node", "size", "tokens", "depth"]]

# %% [markdown]
# The tree of one search. Each node is a latent state; a simulation adds one. To extend a node, the model asks the cache
# for the context of its parent.

# %%
figure, axes = plt.subplots(figsize=(8, 3))
draw_tree(axes, read_searches(path).tree())

# %% [markdown]
# ## Replay
#
# Every cache gets the same requests. One pass checks each token that it returns and counts what it asks of torch;
# another times all caches in turns, step by step. The recurrent pool is made small here, 40 slots where a search
# needs 80, because small pools are where caches differ.

# %%
steps = list(read_steps(reader.events()))
replay = Replay(steps, CacheConfig(geometry, recur_pool_size=40), ["legacy", "new"])
reports = replay.run(repetitions=2)
result = result_of(reports, describe_trace(reader, steps), "cpu", Capacity("recur=40", recur=40))
picture([result], {"cpu": str(Machine.describe())})

# %%
print(*answers(result), sep="\n")

# %% [markdown]
# ## Read
#
# **Trust first.** A *stale hit* returned the content of another key, and nobody noticed; a *context mismatch* is
# the right key with another history than the search meant. Only a *hit* is a hit.

# %%
outcomes = pd.DataFrame({each.name: each.outcomes.total for each in result.backends})
outcomes.loc[["hit_rate", "stale_hit_rate", "context_mismatch_rate", "miss_rate"]].mul(100).round(2)

# %% [markdown]
# Where legacy's lookups go wrong, by steps below the root. A small pool loses what was stored long ago.

# %%
figure, axes = plt.subplots(figsize=(7, 3))
draw_places(axes, result.first.timeline, "depth")

# %% [markdown]
# **Work**: what one recurrent step (one simulation of all environments) asks of torch. These are exact: they are
# the same on any machine.

# %%
pd.DataFrame({each.name: each.counts_per_step for each in result.backends}).astype(int)

# %% [markdown]
# **Memory**, in bytes: what pools and batches hold on to.

# %%
pd.DataFrame({each.name: each.bytes_reserved for each in result.backends})

# %% [markdown]
# **Time.** The ratio comes from pairs of steps timed one after the other, with its quartiles; microseconds of a
# shared machine mean little, and so does a ratio where one cache returns stale contents and the other misses. In
# this pool of 40 slots each miss of *new* costs a call of the model, which a replay does not have.

# %%
paired = result.baseline_over_backend["new"]
print(f"legacy / new: {paired.median:.2f} (quartiles {paired.p25:.2f} to {paired.p75:.2f})")
pd.DataFrame({each.name: {name: time.p50 for name, time in each.latency_us.items()} for each in result.backends}).round(
    1
)

# %% [markdown]
# The same on the command line: `kvbench replay my.parquet --capacity recur=40 --picture replay.png`.
# Where the time goes, call by call: `kvbench profile my.parquet`. How large the pool should be: notebook 3.

# %%
folder.cleanup()
