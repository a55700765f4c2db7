import json
import os
import platform
from dataclasses import replace

import torch

from kvbench.measure.machine import Machine
from kvcache import __version__


def test_describes_this_machine():
    machine = Machine.describe()
    assert machine.processor
    assert 1 <= machine.cores <= os.cpu_count()
    assert machine.threads == torch.get_num_threads()
    assert machine.accelerator is None
    assert machine.python_version == platform.python_version()
    assert machine.torch_version == torch.__version__
    assert machine.kvcache_version == __version__


def test_survives_json():
    machine = Machine.describe()
    assert Machine(**json.loads(json.dumps(machine.to_dict()))) == machine


def test_in_words():
    machine = Machine("A CPU", 2, 1, None, "Linux 6", "3.11", "2.4", "0.1", True, None)
    assert str(machine) == "A CPU, 2 cores, 1 torch threads; Python 3.11, torch 2.4; kvcache 0.1, compiled; Linux 6"
    assert "; kvcache 0.1, not compiled; " in str(replace(machine, kvcache_compiled=False))
    assert "; A GPU; " in str(replace(machine, accelerator="A GPU"))
