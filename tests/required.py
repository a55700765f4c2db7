"""A pytest plugin: with ``KVCACHE_REQUIRE=compiled,triton`` a skip for want of a compiled part or of Triton fails."""

import os

import pytest

VARIABLE = "KVCACHE_REQUIRE"
# What the reason of a skip says that is for want of each.
SIGNS = {
    "browser": ("Chromium",),
    "compiled": ("not compiled", "no compiler", "_page_arrays", "eviction._tree", "_tree_arrays", "kernels.cpu"),
    "triton": ("triton",),
}


def required():
    """The words of the variable. Raises pytest.UsageError for one that means nothing."""
    words = [word for word in os.environ.get(VARIABLE, "").split(",") if word]
    for word in words:
        if word not in SIGNS:
            raise pytest.UsageError(f"{VARIABLE} has {word!r}: choose out of {', '.join(SIGNS)}")
    return words


def pytest_configure(config):
    required()


def forbidden(report):
    """What was required and is missing, if that is why the report is a skip."""
    reason = str(report.longrepr)
    return [word for word in required() if any(sign in reason for sign in SIGNS[word])]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return fail_if_required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return fail_if_required((yield))


def fail_if_required(report):
    if report.skipped and not hasattr(report, "wasxfail") and forbidden(report):
        report.outcome = "failed"
        report.longrepr = f"{VARIABLE} forbids this skip: {report.longrepr}"
    return report
