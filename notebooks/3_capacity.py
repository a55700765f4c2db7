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
# # 3. How large should a pool be?
#
# The same recorded search, asked of pools of any size. The pools are the library's own and hold a symbol for each
# context instead of its tensors, so that a size takes a fraction of a second; the outcomes are those that `kvcache
# replay --capacity` counts. Two lines bound every policy: *unbounded* never evicts, *belady* knows the future.

# %%
# %matplotlib inline
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from kvbench.capacity.curves import (
    POLICIES,
    capacities_to_try,
    hit_rate_by_bytes,
    hit_rate_curves,
    most_entries,
)
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import read_steps
from kvcache import GEOMETRIES

reader = TraceReader(Path("../benchmarks/traces/cartpole-lightzero-0.2.0-seed0.parquet"))
geometry = reader.header.geometry
steps = list(read_steps(reader.events(), searches=15))
most = most_entries(steps)
print(f"{len(steps)} inferences; a search stores {most} entries of {geometry.entry_bytes():,} bytes")

# %% [markdown]
# ## Miss-ratio curves
#
# Legacy never misses: what it does not have any more it answers with another key's content. Such stale hits are
# no right answers, and neither are context mismatches, which follow from earlier misses. Legacy's line lies on
# FIFO's: it has the same right answers, and a wrong one for each of FIFO's misses.

# %%
curves = hit_rate_curves(steps, geometry, capacities_to_try(most, 14), POLICIES)
failures = 100 * (1 - curves.pivot(index="entries", columns="policy", values="hit_rate"))[list(POLICIES)]
figure, axes = plt.subplots(figsize=(7, 4))
failures.drop(columns=["belady", "unbounded"]).plot(ax=axes, marker="o", markersize=3)
failures[["belady", "unbounded"]].plot(ax=axes, style=["k--", "k:"])
axes.set(xlabel="slots of the recurrent pool", ylabel="lookups without a right answer, %", xscale="log", ylim=(-2, 102))
failures.round(1)

# %% [markdown]
# What each kind of failure contributes, at a quarter of the entries that a search stores:

# %%
quarter = hit_rate_curves(steps, geometry, [most // 4], POLICIES).set_index("policy")
quarter[["hit_rate", "context_mismatch_rate", "stale_hit_rate", "miss_rate"]].mul(100).round(1)

# %% [markdown]
# ## The smallest pool that answers 99 % of the lookups
#
# At every fourth size. LRU does worse than FIFO in this search, as the curves show; PRIORITY keeps shallow nodes,
# which helps in small pools only.

# %%
every = hit_rate_curves(steps, geometry, list(range(1, most + 1, 4)), ["fifo", "priority", "belady"])
enough = every[every["hit_rate"] >= 0.99].groupby("policy", sort=False).first()
enough[["entries", "bytes", "hit_rate"]]

# %% [markdown]
# ## In bytes
#
# Slots of full entries are one way to spend memory. Paged storage lets contexts share the tokens that they have in
# common: the same budget holds more of them. Slab's line lies on legacy's, which has the same slots.

# %%
budgets = [geometry.entry_bytes() * most // share for share in (32, 16, 8, 4, 2, 1)]
by_bytes = hit_rate_by_bytes(steps, geometry, budgets)
shares = 100 * by_bytes.pivot(index="bytes", columns="backend", values="hit_rate")
figure, axes = plt.subplots(figsize=(7, 4))
(shares.set_axis(shares.index / 1e6)).plot(ax=axes, marker="o", markersize=3)
axes.set(xlabel="recurrent pool, MB", ylabel="hits, %", xscale="log", ylim=(-2, 102))
shares.round(1)

# %% [markdown]
# ## What an entry weighs
#
# Layers x 2 x embedding x context x 4 bytes, and one entry for each node of a search: what a recurrent pool takes
# in full slots. The recorded search above is cartpole's; a trace of another geometry comes from `kvbench record
# synthetic-model`.

# %%
pd.DataFrame(
    {
        name: {
            "context tokens": each.context_length,
            "entry, KiB": each.entry_bytes() / 1024,
            "nodes of a search": each.num_simulations * each.env_num,
            "recurrent pool, MB": each.num_simulations * each.env_num * each.entry_bytes() / 1e6,
        }
        for name, each in GEOMETRIES.items()
    }
).T.round(1)
