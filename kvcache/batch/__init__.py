"""Batches: how rows found in pools get into the batch cache, and how its rows get back into pools."""

from kvcache.batch.base import Batch, Destinations, Found, Row
from kvcache.batch.resident import ResidentBatch
from kvcache.batch.rows import RowBatch
from kvcache.batch.tokens import TokenBatch

__all__ = ["Batch", "Destinations", "Found", "ResidentBatch", "Row", "RowBatch", "TokenBatch"]
