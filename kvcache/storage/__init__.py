"""Storages: the memory of a pool's slots."""

from kvcache.storage.base import EntrySpec, Storage
from kvcache.storage.paged import PagedStorage, Pages
from kvcache.storage.private import PrivateStorage
from kvcache.storage.reference import ReferenceStorage
from kvcache.storage.slab import Slab, SlabStorage
from kvcache.storage.tokens import TokenMemory, TokenStorage

__all__ = [
    "DEFAULT_STORAGE",
    "STORAGES",
    "EntrySpec",
    "PagedStorage",
    "Pages",
    "PrivateStorage",
    "ReferenceStorage",
    "Slab",
    "SlabStorage",
    "Storage",
    "TokenMemory",
    "TokenStorage",
    "make_storage",
]

DEFAULT_STORAGE = "private"

STORAGES: dict[str, type[Storage]] = {
    "private": PrivateStorage,
    "reference": ReferenceStorage,
    "slab": SlabStorage,
    "paged": PagedStorage,
}


def make_storage(name: str, pool_size: int, spec: EntrySpec | None = None) -> Storage:
    """A storage of that name with ``pool_size`` slots. Raises ValueError, with the choices, for an unknown name."""
    if name not in STORAGES:
        raise ValueError(f"unknown storage {name!r}: choose one of {', '.join(STORAGES)}")
    return STORAGES[name](pool_size, spec)
