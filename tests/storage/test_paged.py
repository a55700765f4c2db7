"""Paged storage: tables of shared pages."""

from conformance import CopyingStorageConformance


class TestPagedStorage(CopyingStorageConformance):
    storage = "paged"

    def check_memory_kept(self, pool, inserts):
        pages = pool.storage.memory
        assert pages.used == 2 + inserts * 4  # nobody's two, and the tokens of an entry
        assert pages.nbytes >= pages.used * pages.row_bytes
        # What is kept is free for other pools, but for what this one reserved: two tokens a slot.
        assert pool.bytes_reserved == inserts * 2 * pages.row_bytes
