"""Putting an adapter's methods into LightZero's class, and taking them out again."""

from __future__ import annotations

import functools
import gc
import importlib
from collections.abc import Callable
from typing import Any

from kvcache.backend import CacheBackend
from kvcache.integrations.lightzero.adapter import Adapter, Replacement
from kvcache.integrations.lightzero.attachment import Attachment
from kvcache.integrations.lightzero.guard import UnsupportedLightZeroError, check_source
from kvcache.integrations.lightzero.release_0_2_0 import Release020
from kvcache.integrations.lightzero.settings import Settings

__all__ = ["backend_of", "install", "installed", "uninstall"]

_MODULE = "lzero.model.unizero_world_models.world_model"
_ATTACHMENT = "_kvcache_attachment"  # of a model, in its __dict__
_ADAPTERS: tuple[Adapter, ...] = (Release020(),)


class _Installation:
    """An adapter's methods in a class.

    Args:
        world_model: LightZero's class.
        adapter: for it.
    """

    def __init__(self, world_model: type, adapter: Adapter) -> None:
        self.world_model, self.adapter = world_model, adapter
        replaced = {**adapter.root, **adapter.node, **adapter.clears}
        self.originals: dict[str, Any] = {name: getattr(world_model, name) for name in ("__init__", *replaced)}
        setattr(world_model, "__init__", self._attaching(self.originals["__init__"]))  # noqa: B010
        for name, replacement in replaced.items():
            setattr(world_model, name, _dispatching(self.originals[name], replacement))

    def _attaching(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def init(model: Any, config: Any, *args: Any, **kwargs: Any) -> None:
            original(model, config, *args, **kwargs)
            settings = Settings.read(config, model.env_num, self.adapter.pool_sizes(model))
            if settings is not None:
                model.__dict__[_ATTACHMENT] = Attachment(settings)
                self.adapter.attach(model, model.__dict__[_ATTACHMENT])

        return init

    def remove(self) -> None:
        for name, original in self.originals.items():
            setattr(self.world_model, name, original)
        for model in gc.get_objects():  # copies made by others too
            if isinstance(model, self.world_model) and model.__dict__.pop(_ATTACHMENT, None) is not None:
                self.adapter.detach(model)


_installations: list[_Installation] = []  # one at most


def install() -> str:
    """Let LightZero's world models have the new cache, where their configuration asks for it. Twice is once.

    Returns:
        The name of the LightZero that is served.

    Raises:
        ImportError: LightZero is not installed.
        UnsupportedLightZeroError: this LightZero's methods are not known; it names them.
    """
    if not _installations:
        world_model = importlib.import_module(_MODULE).WorldModel
        _installations.append(_Installation(world_model, _adapter(world_model)))
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
    for adapter in _ADAPTERS:
        try:
            check_source(world_model, adapter.name, adapter.reads)
        except UnsupportedLightZeroError as error:
            refusals.append(str(error))
        else:
            return adapter
    raise UnsupportedLightZeroError("\n".join(refusals))


def _dispatching(original: Callable[..., Any], replacement: Replacement) -> Callable[..., Any]:
    """A method that is the replacement for models with the new cache, and the original for all others."""

    @functools.wraps(original)
    def method(model: Any, *args: Any, **kwargs: Any) -> Any:
        attachment = model.__dict__.get(_ATTACHMENT)
        if attachment is None:
            return original(model, *args, **kwargs)
        return replacement(attachment, model, functools.partial(original, model), *args, **kwargs)

    return method
