"""What all tests share: one thread, fixed seeds, repeatable property tests."""

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("conformance", "histories", "invariants")
pytest_plugins = ["required"]

torch.set_num_threads(1)

# The conformance classes are inherited, so one property runs under several classes: that is their purpose.
_INHERITED = [HealthCheck.differing_executors, HealthCheck.too_slow]

settings.register_profile("repeatable", deadline=None, derandomize=True, suppress_health_check=_INHERITED)
# pytest --hypothesis-profile=explore: other examples on every run, and more of them.
settings.register_profile("explore", deadline=None, max_examples=1000, suppress_health_check=_INHERITED)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fixed_seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
