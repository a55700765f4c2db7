"""A UniZero-style world model whose inference runs on any of the caches, and a search over it."""

from kvcache.world_model.config import LARGEST_SEED, WorldModelConfig
from kvcache.world_model.inference import Inference, InferenceRequest
from kvcache.world_model.model import WorldModel
from kvcache.world_model.play import Played, play
from kvcache.world_model.search import Search, SearchConfig, SearchResult
from kvcache.world_model.steps import CompileError

__all__ = [
    "LARGEST_SEED",
    "CompileError",
    "Inference",
    "InferenceRequest",
    "Played",
    "Search",
    "SearchConfig",
    "SearchResult",
    "WorldModel",
    "WorldModelConfig",
    "play",
]
