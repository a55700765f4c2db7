"""Whether the installed LightZero is one that an adapter was written for."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "UnsupportedLightZeroError",
    "check_class",
    "check_source",
    "installed_version",
    "source_digest",
    "text_digest",
]

_DIGITS = 16


class UnsupportedLightZeroError(RuntimeError):
    """The installed LightZero is not one that the adapters were written for, or a run uses what they do not serve."""


def source_digest(method: Any) -> str:
    """The digest of a method's source."""
    return text_digest(inspect.getsource(inspect.unwrap(method)))


def text_digest(source: str) -> str:
    """The first digits of the SHA-256 of source lines, without blank lines and trailing spaces."""
    lines = (line.rstrip() for line in source.splitlines())
    return hashlib.sha256("\n".join(line for line in lines if line).encode()).hexdigest()[:_DIGITS]


def check_source(world_model: type, name: str, expected: Mapping[str, str]) -> None:
    """Check the methods that an adapter replaces, and those that call them.

    Args:
        world_model: LightZero's class.
        name: of the LightZero that the adapter is for.
        expected: the digest of each method.

    Raises:
        UnsupportedLightZeroError: a method is missing or another one; it names them all.
    """
    differing = []
    for method, digest in expected.items():
        found = getattr(world_model, method, None)
        actual = "no such method" if found is None else source_digest(found)
        if actual != digest:
            differing.append(f"{method}: expected {digest}, found {actual}")
    if differing:
        raise UnsupportedLightZeroError(f"it is not {name}: {world_model.__name__} has {'; '.join(differing)}")


def check_class(model: type, world_model: type, names: Iterable[str]) -> None:
    """Check that a class of the user's model has the methods that an adapter knows.

    Args:
        model: the class, or one derived from it.
        world_model: LightZero's class, which was checked.
        names: of the methods.

    Raises:
        UnsupportedLightZeroError: the class has methods of its own; it names them all.
    """
    own = [name for name in names if getattr(model, name) is not getattr(world_model, name)]
    if own:
        raise UnsupportedLightZeroError(
            f"{model.__name__} has its own {', '.join(own)}, which the new cache does not know: leave "
            f"use_new_cache_manager out of its world_model_cfg; {world_model.__name__} can use it"
        )


def installed_version() -> str:
    """The version that the installed LightZero gives itself; main calls itself 0.2.0 too."""
    try:
        return importlib.metadata.version("lightzero")
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
