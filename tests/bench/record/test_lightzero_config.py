"""UniZero configurations: a user's file, changed values, and what is said of a bad one."""

import sys

import pytest

from kvbench.record import lightzero_pinning
from kvbench.record.lightzero_config import ConfigError, UniZeroConfig, load_config, parse_settings

FILE = """
class Tree(dict):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    __setattr__ = dict.__setitem__

main_config = Tree(
    env=Tree(env_name="Maze-v0"),
    policy=Tree(cuda=True, batch_size=8, model=Tree(world_model_cfg=Tree(device="cuda"))),
    exp_name="mine",
)
create_config = Tree(env_manager=Tree(type="subprocess"), policy=Tree(type="unizero"))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_unizero_config.py"
    path.write_text(FILE)
    return path


def test_a_users_file(file):
    config = load_config(file)
    assert (config.name, config.geometry) == ("Maze-v0", "my_unizero_config")
    assert (config.entry, config.collector) == ("train_unizero", "MuZeroCollector")


def test_a_file_that_trains_in_main_as_lightzeros_atari_files_do(tmp_path):
    path = tmp_path / "atari_unizero_config.py"
    body = "".join(f"    {line}\n" for line in FILE.splitlines())
    path.write_text(
        f"def main(seed=0):\n{body}    from lzero.entry import train_unizero\n"
        "    train_unizero([main_config, create_config], seed=seed, max_env_step=10)\n"
    )
    before = sys.modules.get("lzero.entry")
    assert load_config(path).main.policy.batch_size == 8
    assert sys.modules.get("lzero.entry") is before
    path.write_text("def main():\n    1 / 0")
    with pytest.raises(ConfigError, match=r"its main\(\) fails with ZeroDivisionError"):
        load_config(path)
    path.write_text("def main():\n    pass")
    with pytest.raises(ConfigError, match="does not set main_config and create_config"):
        load_config(path)


def test_it_is_run_on_the_cpu_in_this_process_and_stays_as_it_is(file):
    config = load_config(file)
    main, create = config.fresh()
    assert (main.policy.cuda, main.policy.device, main.policy.model.world_model_cfg.device) == (False, "cpu", "cpu")
    assert (create.env_manager.type, main.exp_name) == ("base", "run")
    assert (config.main.policy.cuda, config.create.env_manager.type) == (True, "subprocess")


def test_values_are_changed_by_path(file):
    config = load_config(file)
    changed = config.changed({"policy.batch_size": 4, "policy.num_segments": 8})
    assert (changed.main.policy.batch_size, config.main.policy.batch_size) == (4, 8)
    assert (changed.entry, changed.collector) == ("train_unizero_segment", "MuZeroSegmentCollector")
    with pytest.raises(ConfigError, match=r"no 'policy.modle.x': 'modle' is not among cuda, batch_size, model"):
        config.changed({"policy.modle.x": 1})


def test_settings_from_the_command_line():
    given = ["policy.batch_size=32", "a.b=true", "name=CartPole-v0", "x=[1, 2]", "empty="]
    assert parse_settings(given) == {
        "policy.batch_size": 32, "a.b": True, "name": "CartPole-v0", "x": [1, 2], "empty": "",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"'policy' is no setting: write it as policy.batch_size=32"):
        parse_settings(["policy"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("main_config = {}", "does not set create_config"),
        ("1 / 0", "fails with ZeroDivisionError: division by zero"),
        ("main_config = {}\ncreate_config = {'policy': {'type': 'muzero'}}", "is for the policy 'muzero'"),
        ("main_config, create_config = {}, {}", "is for the policy None"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, fault):
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"bad\.py {fault}"):
        load_config(path)


@pytest.mark.parametrize("name", ["absent.py", "chess", "notes.txt"])
def test_no_such_file(tmp_path, name):
    with pytest.raises(ConfigError, match=r"is no Python file: give a UniZero configuration, or one of cartpole"):
        load_config(tmp_path / name)


def test_the_copies_share_nothing(file):
    config = load_config(file)
    config.fresh()[0].policy.batch_size = 1
    assert config.fresh()[0].policy.batch_size == 8
    assert isinstance(config, UniZeroConfig)


def test_environments_start_from_the_seed(monkeypatch):
    class Env:
        def reset(self, seed):
            self.seed = seed

    library = type(sys)("gymnasium")
    library.make = lambda name: Env()
    monkeypatch.setitem(sys.modules, "gymnasium", library)
    monkeypatch.setattr(lightzero_pinning, "_load_tree", lambda seed: None)
    monkeypatch.setattr(
        lightzero_pinning.importlib.util, "find_spec", lambda name: name if name == "gymnasium" else None
    )
    seeds = []
    for seed in (3, 3, 4):
        lightzero_pinning.pin(seed)
        seeds.append([library.make("CartPole-v0").seed for _ in range(2)])
    assert seeds == [[3001, 3002], [3001, 3002], [4001, 4002]]
