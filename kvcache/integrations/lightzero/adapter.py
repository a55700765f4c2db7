"""What an adapter to one state of LightZero has to provide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from kvcache.integrations.lightzero.attachment import Attachment

__all__ = ["Adapter", "Replacement"]


class Replacement(Protocol):
    """Takes the place of a world model's method, where the model has the new cache."""

    def __call__(self, attachment: Attachment, model: Any, original: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As the method.

        Args:
            attachment: the model's cache.
            model: whose method is called.
            original: LightZero's own method.
            args: of the call.
            kwargs: of the call.
        """


class Adapter(Protocol):
    """How one state of LightZero uses its caches.

    Attributes:
        name: of the LightZero.
        reads: the digest of every method that this relies on (see ``guard.source_digest``).
        root: the methods of an initial inference, replaced.
        node: those of a recurrent inference.
        clears: those that clear caches.
    """

    name: str
    reads: Mapping[str, str]
    root: Mapping[str, Replacement]
    node: Mapping[str, Replacement]
    clears: Mapping[str, Replacement]

    def attach(self, model: Any, attachment: Attachment) -> None:
        """Put stand-ins where LightZero's policies clear its dicts."""

    def detach(self, model: Any) -> None:
        """Put empty dicts of LightZero's kind back."""

    def pool_sizes(self, model: Any) -> Mapping[str, int]:
        """LightZero's own number of entries: ``init`` of each environment, and ``recur``."""
