"""Backends with a fault that several tests plant."""

from kvcache.manager import KVCacheManager


class TokenMajor(KVCacheManager):
    """Its batches lie token by token."""

    def assemble(self):
        sizes = super().assemble()
        for layer in self.keys_values_wm:
            for cache in (layer._k_cache, layer._v_cache):
                cache._cache = cache._cache.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)
        return sizes


class AnotherRow(KVCacheManager):
    """Each row of its batches is the next one's."""

    def assemble(self):
        sizes = super().assemble()
        block = self.keys_values_wm.block
        block.copy_(block.roll(1, dims=0))
        return sizes
