"""README's three lines at the end of LightZero's own configuration. Run by ``tox -e lightzero``."""

import copy
import importlib
import re
from pathlib import Path

import pytest

pytest.importorskip("lzero", reason="LightZero is not installed: tox -e lightzero")

from lightzero_driver import make_model

from kvcache import KVCacheManager
from kvcache.integrations import lightzero

README = Path(__file__).resolve().parents[3] / "README.md"
CONFIG = "zoo.classic_control.cartpole.config.cartpole_unizero_config"


def test_it_switches_the_cache():
    (block,) = re.findall(r"^```python no-run\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    config = {"main_config": copy.deepcopy(importlib.import_module(CONFIG).main_config)}
    try:
        exec(compile(block, str(README), "exec"), config)
        settings = config["main_config"].policy.model.world_model_cfg
        chosen = {name: settings[name] for name in ("use_new_cache_manager", "enable_cache_logging")}
        assert isinstance(lightzero.backend_of(make_model(**chosen)), KVCacheManager)
    finally:
        lightzero.uninstall()
    assert chosen == {"use_new_cache_manager": True, "enable_cache_logging": True}
