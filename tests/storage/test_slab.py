"""Slab storage: slots in one tensor."""

from conformance import CopyingStorageConformance


class TestSlabStorage(CopyingStorageConformance):
    storage = "slab"
