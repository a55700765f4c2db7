"""A UniZero-style world model whose inference runs on any of the caches, and a search over it."""

from kvcache.world_model.config import WorldModelConfig
from kvcache.world_model.inference import Inference
from kvcache.world_model.model import WorldModel
from kvcache.world_model.search import Search, SearchConfig, SearchResult

__all__ = ["Inference", "Search", "SearchConfig", "SearchResult", "WorldModel", "WorldModelConfig"]
