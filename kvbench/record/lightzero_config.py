"""UniZero configurations: LightZero's own by name, or a user's file, made ready for a run on this machine."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import importlib.util
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kvbench.errors import KvbenchError
from kvbench.parse import parse_json

__all__ = [
    "ENVIRONMENTS",
    "LIGHTZERO_VERSION",
    "ConfigError",
    "UniZeroConfig",
    "load_config",
    "parse_settings",
    "require_lightzero",
]

LIGHTZERO_VERSION = "0.2.0"

# Our name -> the module of LightZero's package ``zoo``, and the geometry's name.
ENVIRONMENTS = {
    "cartpole": ("zoo.classic_control.cartpole.config.cartpole_unizero_config", "cartpole"),
    "lunarlander": ("zoo.box2d.lunarlander.config.lunarlander_disc_unizero_config", "lunarlander"),
    "pong": ("zoo.atari.config.atari_unizero_config", "pong"),
}

_POLICIES = ("unizero", "sampled_unizero")


class ConfigError(KvbenchError):
    """A configuration that cannot be used: which one, and what is wrong with it."""


@dataclass(frozen=True)
class UniZeroConfig:
    """A configuration that is not changed: ``fresh`` makes copies, since LightZero changes its arguments.

    Attributes:
        name: of the environment, as its library calls it.
        geometry: a name for its shapes.
        main: LightZero's ``main_config``.
        create: its ``create_config``.
    """

    name: str
    geometry: str
    main: Any
    create: Any

    def fresh(self) -> tuple[Any, Any]:
        """Copies for a run on the CPU in this process, whose files go to the folder ``run``."""
        main, create = copy.deepcopy(self.main), copy.deepcopy(self.create)
        main.policy.cuda = False
        main.policy.device = "cpu"
        main.policy.model.world_model_cfg.device = "cpu"
        main.exp_name = "run"
        create.env_manager.type = "base"
        return main, create

    def changed(self, values: Mapping[str, Any]) -> UniZeroConfig:
        """The configuration with other values, by their paths in ``main_config``: ``policy.batch_size``.

        Raises:
            ConfigError: there is no such path.
        """
        main = copy.deepcopy(self.main)
        for path, value in values.items():
            *parents, name = path.split(".")
            place = main
            for parent in parents:
                if parent not in place:
                    raise ConfigError(f"the configuration has no {path!r}: {parent!r} is not among {', '.join(place)}")
                place = place[parent]
            place[name] = value
        return UniZeroConfig(self.name, self.geometry, main, self.create)

    @property
    def entry(self) -> str:
        """The function of ``lzero.entry`` that trains it."""
        return "train_unizero_segment" if self._has_segments else "train_unizero"

    @property
    def collector(self) -> str:
        """The class of ``lzero.worker`` that this function collects with."""
        return "MuZeroSegmentCollector" if self._has_segments else "MuZeroCollector"

    @property
    def _has_segments(self) -> bool:
        return "num_segments" in self.main.policy


def load_config(source: str | Path) -> UniZeroConfig:
    """A configuration.

    Args:
        source: a name from ``ENVIRONMENTS``, or a Python file as LightZero's ``*_unizero_config.py`` are: with
            ``main_config`` and ``create_config``, or with a function ``main`` that trains with them.

    Raises:
        ConfigError: there is no such file, it fails, or it is no UniZero configuration.
    """
    if source in ENVIRONMENTS:
        module, geometry = ENVIRONMENTS[str(source)]
        content: Mapping[str, Any] = vars(importlib.import_module(module))
    else:
        geometry, content = Path(source).stem, _run(Path(source))
    if "main_config" not in content and callable(content.get("main")):
        content = _of_main(source, content["main"])
    missing = [name for name in ("main_config", "create_config") if name not in content]
    if missing:
        raise ConfigError(f"{source} does not set {' and '.join(missing)}: a LightZero configuration sets both")
    main, create = content["main_config"], content["create_config"]
    policy = create.get("policy", {}).get("type")
    if policy not in _POLICIES:
        raise ConfigError(f"{source} is for the policy {policy!r}: this works with {' and '.join(_POLICIES)}")
    name = main.get("env", {}).get("env_name", main.get("env", {}).get("env_id", geometry))
    return UniZeroConfig(str(name), geometry, main, create)


def _run(path: Path) -> Mapping[str, Any]:
    if path.suffix != ".py" or not path.is_file():
        known = ", ".join(ENVIRONMENTS)
        raise ConfigError(f"{path} is no Python file: give a UniZero configuration, or one of {known}")
    try:
        return runpy.run_path(str(path))
    except Exception as error:
        raise ConfigError(f"{path} fails with {type(error).__name__}: {error}") from error


def _of_main(source: str | Path, main: Callable[[], object]) -> Mapping[str, Any]:
    """What ``main`` hands to a function of ``lzero.entry``, which is not called: LightZero's Atari files are so."""
    try:
        with _no_training() as given:
            main()
    except Exception as error:
        raise ConfigError(f"{source}: its main() fails with {type(error).__name__}: {error}") from error
    return dict(zip(("main_config", "create_config"), given[0], strict=True)) if given else {}


@contextmanager
def _no_training() -> Iterator[list[Sequence[Any]]]:
    """Have ``lzero.entry`` train nothing; yields the configurations that it is given. LightZero is not imported."""
    given: list[Sequence[Any]] = []

    def entry(configs: Sequence[Any], *args: Any, **kwargs: Any) -> None:
        given.append(configs)

    name = "lzero.entry"
    stand_in = ModuleType(name)
    stand_in.__getattr__ = lambda attribute: entry  # type: ignore[method-assign]
    before = sys.modules.get(name)
    sys.modules[name] = stand_in
    try:
        yield given
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """``policy.batch_size=32`` as a path and a JSON value; other text stays text.

    Raises:
        ConfigError: there is no ``=`` in one.
    """
    values: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not (path and equals):
            raise ConfigError(f"{text!r} is no setting: write it as policy.batch_size=32")
        try:
            values[path] = parse_json(value, constant=float)
        except ValueError:
            values[path] = value
    return values


def require_lightzero() -> None:
    """Raise ConfigError where LightZero is not installed, or another version."""
    how = "run this in 'tox -e lightzero -- kvbench ...'"
    if importlib.util.find_spec("lzero") is None:
        raise ConfigError(f"LightZero {LIGHTZERO_VERSION} is not installed: {how}")
    version = importlib.metadata.version("lightzero")
    if version != LIGHTZERO_VERSION:
        raise ConfigError(f"LightZero {version} is installed, and this is for {LIGHTZERO_VERSION}: {how}")
