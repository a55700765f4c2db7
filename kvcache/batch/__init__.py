"""Batches: how rows found in pools get into the batch cache, and how the batch's rows get back into pools."""

from kvcache.batch.base import Batch, Found, Row
from kvcache.batch.resident import ResidentBatch
from kvcache.batch.rows import RowBatch
from kvcache.batch.tokens import TokenBatch

__all__ = ["Batch", "Found", "ResidentBatch", "Row", "RowBatch", "TokenBatch"]
