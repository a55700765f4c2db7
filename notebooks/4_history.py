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
# # 4. A metric across commits
#
# asv measures commits and keeps the numbers in `benchmarks/results/`; `kvbench.results.asv` reads them as one tidy
# frame. On the command line: `kvbench results`. Numbers of one machine stand together: they say nothing beside
# another's.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt

from kvbench.results.asv import load_durations, load_results

results = load_results("../benchmarks/results")
commits = results.drop_duplicates("commit")[["machine", "date", "commit"]].reset_index(drop=True)
print(f"{len(results):,} values, {results['benchmark'].nunique()} benchmarks, {len(commits)} commits")
commits

# %% [markdown]
# What was not measured is in the frame as well, and says so: this machine has no CUDA device.

# %%
results["state"].value_counts().to_frame("values")

# %% [markdown]
# ## Choose one metric
#
# Of the recorded search: tensor operations in a recurrent step, by backend. It is deterministic, so that any step
# in it is a change of the code and never of the weather.

# %%
measured = results[results["state"] == "ok"]
replays = measured[measured["benchmark"].str.startswith("replays.")].copy()
replays["metric"] = replays["benchmark"].str.rpartition(".")[2].str.removeprefix("track_")
replays["backend"] = replays["params"].str.extract(r"backend=([^,]+)")
replays["short"] = replays["commit"].str[:8]
operations = replays[(replays["metric"] == "tensor_operations") & replays["params"].str.contains("cartpole")]
history = operations.pivot_table(index="short", columns="backend", values="value", sort=False)
history

# %%
figure, axes = plt.subplots(figsize=(7, 3.5))
history.plot(ax=axes, marker="o", drawstyle="steps-post")
axes.set(xlabel="commit, oldest first", ylabel=operations["unit"].iloc[0], ylim=(0, None))
axes.set_xticks(range(len(history)), history.index, rotation=30)
legend = axes.legend(fontsize="small")

# %% [markdown]
# ## Which commit changed anything
#
# Deterministic metrics need no statistics: every commit is listed whose value differs from the one before, of all
# benchmarks that are neither times nor ratios of times. The first value of a series is no change.

# %%
exact = measured[~measured["unit"].isin(["us", "ratio"])]
series = exact.pivot_table(index="commit", columns=["benchmark", "params"], values="value", sort=False)
differences = series.diff()
changes = differences.where(differences != 0).T.stack().dropna()
print(f"{series.shape[1]:,} series, {len(series)} commits: {len(changes)} changes")
changes.rename("change").to_frame().head(20)

# %% [markdown]
# ## Times
#
# Times move with the machine; the ratio to legacy, measured side by side in one run, moves less, and still more
# than a small change of the code would. For a verdict on one commit there is `kvbench gate`, which measures both in
# turns.

# %%
metrics = ["step_time", "step_time_over_legacy"]
times = replays[replays["metric"].isin(metrics) & replays["params"].str.contains("cartpole")]
times = times.pivot_table(index="short", columns=["metric", "backend"], values="value", sort=False)
figure, both = plt.subplots(1, 2, figsize=(10, 3.5))
for axes, metric, label in zip(both, metrics, ["recurrent step, us", "new over legacy"], strict=True):
    times[metric].plot(ax=axes, marker="o")
    axes.set(xlabel="commit, oldest first", ylabel=label, ylim=(0, None))
    axes.set_xticks(range(len(times)), times.index, rotation=30)
    axes.legend(fontsize="small")
figure.tight_layout()
times.round(2)

# %% [markdown]
# What measuring took, in seconds a commit:

# %%
load_durations("../benchmarks/results")[["commit", "build", "benchmarks"]].round(1)
