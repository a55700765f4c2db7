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
# # 2. What a trace looks like
#
# A trace is one Parquet file: a row for every request of one environment, and a header that says where it comes
# from. This one is a UniZero on CartPole, trained and searched with LightZero 0.2.0. pandas is all that is needed
# to look into it.

# %%
# %matplotlib inline
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from kvbench.report.pictures import draw_tree
from kvbench.report.searches import read_searches
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import KINDS

reader = TraceReader(Path("../benchmarks/traces/cartpole-lightzero-0.2.0-seed0.parquet"))
header = reader.header
print(f"{header.source['library']} {header.source['version']}, {header.source['environment']}: {header.geometry}")

# %%
events = reader.to_pandas()
print(f"{len(events):,} events of {events['search'].nunique()} searches")
events.head(20)

# %% [markdown]
# ## What is asked
#
# A search begins with a root inference (`root`, `init`), clears the recurrent pool, and goes on with one recurrent
# inference for each simulation (`node`, `recur`). Each of these looks up, assembles and stores one row for each
# environment; a `generate` follows a miss, and this recording has none.

# %%
pd.crosstab(events["kind"].astype(str), events["scope"].astype(str)).reindex(list(KINDS), fill_value=0)

# %% [markdown]
# ## A search's tree
#
# The first search of the first environment. Later simulations go deeper where the search found something.

# %%
figure, axes = plt.subplots(figsize=(8, 3.5))
draw_tree(axes, read_searches(reader.path, searches=1).tree())

# %% [markdown]
# ## How deep it searches
#
# The depth of a new latent below its root. It decides how long a context grows within a search, and so how much of
# what an entry holds is its own.

# %%
stores = events[(events["kind"] == "store") & (events["scope"] == "recur")]
depths = stores["depth"].value_counts().sort_index()
figure, axes = plt.subplots(figsize=(7, 3))
axes.bar(depths.index, depths / len(stores) * 100)
axes.set(xlabel="depth below the root, steps", ylabel="new nodes, %", title="Depth of new nodes")
depths.to_frame("nodes").T

# %% [markdown]
# ## How old a parent is when it is asked for
#
# A lookup names the store event whose node it means (`node`). Between the two lie some batches: as long as that, an
# entry must be kept. A pool that holds the last *n* simulations of all environments answers what lies left of *n*.

# %%
lookups = events[(events["kind"] == "lookup") & (events["scope"] == "node")].astype({"node": int})
meant = events.loc[lookups["node"]]
age = pd.Series(lookups["batch"].to_numpy() - meant["batch"].to_numpy(), index=lookups.index, name="age")
from_root = (meant["scope"] == "init").to_numpy()
figure, axes = plt.subplots(figsize=(7, 3))
axes.hist([age[~from_root], age[from_root]], bins=range(1, 28), stacked=True, label=["of a node", "of the root"])
axes.set(xlabel="age of the parent, simulations", ylabel="lookups", title="How long an entry waits for its lookup")
axes.legend()
age.groupby(from_root).describe().rename(index={False: "of a node", True: "of the root"}).round(1)

# %% [markdown]
# ## How trees branch
#
# How many children a node gets, and which nodes get none: those are stored and never asked for.

# %%
children = lookups.groupby(["search", "env", "node"]).size()
asked_for = meant.index[meant["scope"] == "recur"].nunique()
print(f"{1 - asked_for / len(stores):.1%} of the nodes stored are never looked up")
children.value_counts().sort_index().rename_axis("children").to_frame("nodes with children").T

# %% [markdown]
# ## How long contexts are
#
# Live tokens of each row when it is assembled. Rows of one batch are padded to the longest of them: what lies
# between its longest and its mean row is padding.

# %%
rows = events[(events["kind"] == "assemble") & (events["scope"] == "node")]
sizes = rows.groupby("simulation")["size"].agg(["mean", "min", "max"]).astype(float)
longest = rows.groupby(["search", "simulation"])["size"].max().groupby("simulation").mean().astype(float)
figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(longest, label="longest of the batch, mean")
axes.plot(sizes["mean"], label="mean")
axes.fill_between(sizes.index, sizes["min"], sizes["max"], alpha=0.15, label="shortest to longest")
axes.set(xlabel="simulation of the search", ylabel="live tokens", ylim=(0, header.geometry.context_length))
axes.legend()
sizes.iloc[::4].round(2)
