"""Whether the installed LightZero is one that an adapter was written for."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from typing import Any

__all__ = ["UnsupportedLightZeroError", "check_source", "source_digest"]

_DIGITS = 16


class UnsupportedLightZeroError(RuntimeError):
    """The installed LightZero is not one that the adapters were written for, or a run uses what they do not serve."""


def source_digest(method: Any) -> str:
    """The first digits of the SHA-256 of a method's source, without blank lines and trailing spaces."""
    lines = (line.rstrip() for line in inspect.getsource(inspect.unwrap(method)).splitlines())
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
        raise UnsupportedLightZeroError(
            f"LightZero {_version()} is installed, and this is for {name}: {world_model.__name__} differs in "
            f"{'; '.join(differing)}. Install {name}, or run without kvcache's install()."
        )


def _version() -> str:
    try:
        return importlib.metadata.version("lightzero")
    except importlib.metadata.PackageNotFoundError:
        return "(of unknown version)"
