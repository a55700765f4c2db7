"""What importing the library takes, of a process that has torch already. Its instructions are in counted.py."""

from __future__ import annotations

import pytest
from gates.import_times import IMPORT_TIMES

ROUNDS = 7


@pytest.mark.benchmark(timer=IMPORT_TIMES)
def test_import(benchmark, wants_times):
    if not wants_times or not IMPORT_TIMES.is_started:
        pytest.skip("of an import times alone are measured, before anything else has imported the library")
    benchmark.extra_info["timed"] = True
    benchmark.pedantic(IMPORT_TIMES.import_once, rounds=ROUNDS)
