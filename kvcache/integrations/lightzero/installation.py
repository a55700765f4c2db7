"""Putting an adapter's methods into LightZero's class, and taking them out again."""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib
import logging
from collections.abc import Callable
from typing import Any

from kvcache.backend import CacheBackend
from kvcache.integrations.lightzero.adapter import Adapter, Replacement
from kvcache.integrations.lightzero.attachment import Attachment
from kvcache.integrations.lightzero.guard import UnsupportedLightZeroError, check_class, check_source, installed_version
from kvcache.integrations.lightzero.main_2026_08 import Main202608
from kvcache.integrations.lightzero.methods import WHOLE
from kvcache.integrations.lightzero.release_0_2_0 import Release020
from kvcache.integrations.lightzero.settings import Settings

__all__ = ["ADAPTERS", "backend_of", "install", "installed", "uninstall"]

_MODULE = "lzero.model.unizero_world_models.world_model"
_ATTACHMENT = "_kvcache_attachment"  # of a model, in its __dict__
ADAPTERS: tuple[Adapter, ...] = (Release020(), Main202608())


class _Installation:
    """An adapter's methods in a class, and in the models that were made before.

    Args:
        world_model: LightZero's class.
        adapter: for it.
    """

    def __init__(self, world_model: type, adapter: Adapter) -> None:
        self.world_model, self.adapter = world_model, adapter
        # A bad configuration is found before anything is changed.
        attachments = [(model, self._attachment(model, model.config)) for model in _models(world_model)]
        replaced = {**WHOLE, **adapter.root, **adapter.node, **adapter.clears}
        self.originals: dict[str, Any] = {name: getattr(world_model, name) for name in ("__init__", *replaced)}
        setattr(world_model, "__init__", self._attaching(self.originals["__init__"]))  # noqa: B010
        for name, replacement in replaced.items():
            setattr(world_model, name, _dispatching(self.originals[name], replacement))
        for model, attachment in attachments:
            self._attach(model, attachment)

    def _attaching(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def init(model: Any, config: Any, *args: Any, **kwargs: Any) -> None:
            original(model, config, *args, **kwargs)
            self._attach(model, self._attachment(model, config))

        return init

    def _attachment(self, model: Any, config: Any) -> Attachment | None:
        """The cache that a configuration asks for."""
        settings = Settings.read(config, model.env_num, self.adapter.pool_sizes(model))
        if settings is None:
            return None
        check_class(type(model), self.world_model, self.adapter.reads)
        self.adapter.check(model, settings)
        # Not the configuration's: LightZero takes the CPU where there is no GPU.
        cache = dataclasses.replace(settings.cache, device=model.device)
        return Attachment(dataclasses.replace(settings, cache=cache), self.adapter.legacy)

    def _attach(self, model: Any, attachment: Attachment | None) -> None:
        if attachment is not None:
            if attachment.chain is not None:
                attachment.traversals.observe()
            model.__dict__[_ATTACHMENT] = attachment
            self.adapter.attach(model, attachment)

    def remove(self) -> None:
        for name, original in self.originals.items():
            setattr(self.world_model, name, original)
        Attachment.traversals.restore()
        for model in _models(self.world_model):
            if model.__dict__.pop(_ATTACHMENT, None) is not None:
                self.adapter.detach(model)


def _models(world_model: type) -> list[Any]:
    """All models of a class that are alive, copies made by others too."""
    return [each for each in gc.get_objects() if issubclass(type(each), world_model)]


_installations: list[_Installation] = []  # one at most


def install() -> str:
    """Let LightZero's world models have the new cache, where their configuration asks for it. Twice is once.

    Models that were made before are served too: they begin with an empty cache.

    Returns:
        The name of the LightZero that is served.

    Raises:
        ImportError: LightZero is not installed.
        UnsupportedLightZeroError: this LightZero's methods are not known, or a model's configuration is not served; it
            names them.
        ValueError: a model's configuration has a bad setting.
    """
    if not _installations:
        world_model = importlib.import_module(_MODULE).WorldModel
        _installations.append(_Installation(world_model, _adapter(world_model)))
        log = logging.getLogger("kvcache")
        if log.level == logging.NOTSET:  # LightZero lets the root logger print all, and pools debug each eviction
            log.setLevel(logging.INFO)
    return _installations[0].adapter.name


def uninstall() -> None:
    """Undo ``install``. Models that had the new cache go on with LightZero's own, which is empty."""
    while _installations:
        _installations.pop().remove()


def installed() -> bool:
    """Whether ``install`` was called, and ``uninstall`` not since."""
    return bool(_installations)


def backend_of(model: Any) -> CacheBackend | None:
    """The new cache of a model; None where it has LightZero's own.

    Args:
        model: LightZero's ``WorldModel``, or what has one as ``world_model``.
    """
    attachment = attachment_of(model)
    return None if attachment is None else attachment.backend


def attachment_of(model: Any) -> Attachment | None:
    """As ``backend_of``, but what holds the backend."""
    attachment: Attachment | None = vars(getattr(model, "world_model", model)).get(_ATTACHMENT)
    return attachment


def _adapter(world_model: type) -> Adapter:
    refusals = []
    for adapter in ADAPTERS:
        try:
            check_source(world_model, adapter.name, adapter.reads)
        except UnsupportedLightZeroError as error:
            refusals.append(str(error))
        else:
            return adapter
    known = " or ".join(adapter.name for adapter in ADAPTERS)
    lines = "\n- ".join(
        (f"the installed LightZero (version {installed_version()}) is not one that kvcache knows", *refusals)
    )
    raise UnsupportedLightZeroError(f"{lines}\nInstall {known}, or run without kvcache's install()")


def _dispatching(original: Callable[..., Any], replacement: Replacement) -> Callable[..., Any]:
    """A method that is the replacement for models with the new cache, and the original for all others."""

    @functools.wraps(original)
    def method(model: Any, *args: Any, **kwargs: Any) -> Any:
        attachment = model.__dict__.get(_ATTACHMENT)
        if attachment is None:
            return original(model, *args, **kwargs)
        return replacement(attachment, model, functools.partial(original, model), *args, **kwargs)

    return method
