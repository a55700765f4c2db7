"""Entries by hand: store a context under a latent's key, find it again, and see what a small pool evicts."""

import torch

from kvcache import KeysValues, KVCacheManager, hash_state

LAYERS, HEADS, WIDTH, TOKENS = 2, 2, 64, 8


def context_of(number: int) -> KeysValues:
    """A context of one token, as a model would make it: ``[1, H, 1, D]`` for each layer's keys and values."""
    context = KeysValues(1, HEADS, TOKENS, WIDTH, LAYERS, "cpu")
    for layer in context:
        token = torch.full((1, HEADS, 1, WIDTH // HEADS), float(number))
        layer.update(token, token)
    return context


def main() -> None:
    config = {
        "num_layers": LAYERS, "num_heads": HEADS, "embed_dim": WIDTH, "context_length": TOKENS, "recur_pool_size": 2,
    }  # fmt: skip
    cache = KVCacheManager(config, env_num=1, eviction_strategy="lru")
    keys = [hash_state(torch.full((WIDTH,), float(number))) for number in range(3)]
    for number, key in enumerate(keys):
        cache.set_recur_cache(key, context_of(number))  # the third one evicts the first
    for number, key in enumerate(keys):
        found = cache.hierarchical_get(0, key)
        print(f"state {number}: {'evicted' if found is None else found[0].get()[0].mean().item()}")
    print(cache.get_stats_summary()["recur_pool"])


if __name__ == "__main__":
    main()
