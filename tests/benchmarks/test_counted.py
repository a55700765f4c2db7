"""What callgrind runs for the gate: each kind of benchmark that it counts can be prepared."""

import pytest
from gates import counted


@pytest.mark.parametrize("name", ["test_replay[new:slab-synthetic-pong]", "test_operation[new:slab-pong-store]"])
def test_what_is_counted_calls_the_library(name):
    calls = []

    def count(call):
        calls.append(call)
        return call()

    counted.prepared(name)(count)
    assert len(calls) >= counted.CALLS
