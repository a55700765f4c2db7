"""Changes for the worse that gates of before did not see, each as source to append to ``kvcache/manager.py``.

``benchmarks/gate_trials.py`` plants them in a clone. ``tests/benchmarks/test_gate_plants.py`` plants them in a process,
and says which number shows each. They change nothing but the class ``KVCacheManager`` of the module they stand in.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PLANTS", "Plant", "more"]


@dataclass(frozen=True)
class Plant:
    """One change.

    Attributes:
        what: for the table of trials.
        source: to append.
        shown_by: the metric that gets worse, or a part of the reason for which benchmarks fail.
        keyword: the gate's benchmarks that see it, as pytest's ``-k`` has it.
    """

    what: str
    source: str
    shown_by: str
    keyword: str


_MORE = """

def _planted(original):
    {setup}

    def planted(self, *arguments):
        {before}
        result = original(self, *arguments)
        {after}
        return result

    return planted


KVCacheManager.{method} = _planted(KVCacheManager.{method})
"""
# Each manager counts the calls of one method, and damages some of them.
_DAMAGE = """

def _planted(original):
    def planted(self, *arguments):
        self._calls = getattr(self, "_calls", 0) + 1
        result = original(self, *arguments)
        if {when}:
            {damage}
        return result

    return planted


KVCacheManager.{method} = _planted(KVCacheManager.{method})
"""
# Claims of a full pool of one strategy look through all keys, in C or in Python.
_SCAN = """

def _planted(original):
    def planted(self, name, storage, size):
        pool = original(self, name, storage, size)
        if pool.eviction_strategy is EvictionStrategy.{strategy}:
            pool._slots = _Scanning(pool._slots)
        return pool

    return planted


class _Scanning:
    def __init__(self, slots):
        self._slots = slots

    def __getattr__(self, name):
        return getattr(self._slots, name)

    def __len__(self):
        return len(self._slots)

    def {method}(self, *arguments):
        {scan}
        return self._slots.{method}(*arguments)


KVCacheManager._pool = _planted(KVCacheManager._pool)
"""
_IN_C, _IN_PYTHON = "min(self._slots.keys(), key=id, default=None)", "[key for key in self._slots.keys()]"


def more(method: str, setup: str = "pass", before: str = "pass", after: str = "pass") -> str:
    """Source that lets a method do something more, before or after what it does."""
    return _MORE.format(method=method, setup=setup, before=before, after=after)


def _damage(method: str, when: str, damage: str) -> str:
    return _DAMAGE.format(method=method, when=when, damage=damage)


def _scan(strategy: str, method: str, scan: str) -> str:
    return _SCAN.format(strategy=strategy, method=method, scan=scan)


def _every(calls: int) -> str:
    return f"self._calls % {calls} == 0"


_SPOILT = "self._batch._view.heads[..., 0, :] += 1"
_RESIDENT = 'if type(self._batch).__name__ == "ResidentBatch": '

PLANTS: dict[str, Plant] = {
    # Memory.
    "leak": Plant(
        "a list more for each write", more("store", "kept = []", after="kept.append([])"), "host_bytes_grown", "memory"
    ),
    "leak-array": Plant(
        "an array kept of each assembly",
        more("assemble", "kept = []; import numpy", after="kept.append(numpy.zeros(2))"),
        "host_bytes_grown",
        "memory",
    ),
    "leak-tensor": Plant(
        "a tensor kept of every 16th write",
        more(
            "store",
            "kept = [0]; import torch",
            after="kept[0] += 1; kept[0] % 16 == 0 and kept.append(torch.zeros(64, dtype=torch.float64))",
        ),
        "tensor_bytes_grown",
        "memory",
    ),
    "leak-in-c": Plant(
        "16 bytes of malloc kept of each lookup",
        more("lookup", "import ctypes; libc = ctypes.CDLL(None)", after="libc.malloc(ctypes.c_size_t(16))"),
        "heap_bytes_grown",
        "memory",
    ),
    "copy-kept": Plant(
        "a resident batch that keeps a copy",
        more("assemble", after=_RESIDENT + "self._kept = self._batch._view.heads.numpy().copy()"),
        "array_bytes",
        "memory",
    ),
    "tensor-kept": Plant(
        "a tensor outside bytes_reserved",
        more("__init__", "import torch", after="self._kept = torch.zeros(4096)"),
        "unreserved_bytes",
        "memory",
    ),
    "scratch": Plant(
        "a larger scratch",
        more("assemble", "import numpy", before="numpy.zeros(4096)"),
        "host_scratch_bytes",
        "memory",
    ),
    # Age.
    "age-list": Plant(
        "a list that grows with each lookup and is looked through in C",
        more("lookup", "seen = []", before="seen.append(0); sum(seen)"),
        "lookup gets slower",
        "long_run",
    ),
    "age-loop": Plant(
        "a list that grows with each lookup and is looked through in Python",
        more("lookup", "seen = []", before="seen.append([0 for _ in seen] and 0)"),
        "lookup gets slower",
        "long_run",
    ),
    "age-little": Plant(
        "a little more to do after each thousandth lookup",
        more("lookup", "calls = [0]", before="calls[0] += 1; [0 for _ in range(calls[0] // 1000)]"),
        "bytecodes_grown",
        "long_run",
    ),
    "age-number": Plant(
        "assemblies that get slower and hold nothing",
        more("assemble", "calls = [0]", before="calls[0] += 1; sum(range(calls[0]))"),
        "assemble gets slower",
        "long_run",
    ),
    "every-fourth": Plant(
        "every fourth assembly takes twice as long",
        more(
            "assemble",
            "import time; calls = [0]",
            before="calls[0] += 1; start = time.perf_counter_ns()",
            after="end = 2 * time.perf_counter_ns() - start\n"
            "        while calls[0] % 4 == 0 and time.perf_counter_ns() < end: pass",
        ),
        "calls of assemble one is slow",
        "long_run",
    ),
    # Many searches.
    "clear-leak": Plant(
        "a list more for each clear",
        more("clear_recur_cache", "kept = []", after="kept.append([])"),
        "host_bytes_grown",
        "searches",
    ),
    "root-leak": Plant(
        "a tensor kept of each root that is stored",
        more("store", "kept = []; import torch", after="arguments[2] is Scope.ROOT and kept.append(torch.zeros(64))"),
        "tensor_bytes_grown",
        "searches",
    ),
    "clear-age": Plant(
        "clears that get slower and hold nothing",
        more("clear_recur_cache", "calls = [0]", before="calls[0] += 1; sum(range(10 * calls[0]))"),
        "clear gets slower",
        "searches",
    ),
    "root-loop": Plant(
        "a little more to do after each 20th lookup of roots",
        more(
            "lookup",
            "calls = [0]",
            before="calls[0] += arguments[2] is Scope.ROOT; [0 for _ in range(calls[0] // 20)]",
        ),
        "bytecodes_grown",
        "searches",
    ),
    "root-miss": Plant(
        "one lookup of roots in 1,000 finds nothing",
        _damage(
            "lookup",
            "arguments[2] is Scope.ROOT and min(result) > 0 and (count := getattr(self, '_roots', 0) + 1)"
            " and setattr(self, '_roots', count) is None and count == 1000",
            "result[:] = self.keys_values_wm_size_list[:] = [MISS for _ in result]",
        ),
        "miss",
        "searches",
    ),
    # Pools.
    "fifo-scan": Plant("O(n) victims, FIFO", _scan("FIFO", "claim", _IN_C), "times as long with 4096", "eviction"),
    "lru-scan": Plant("O(n) victims, LRU", _scan("LRU", "claim", _IN_C), "times as long with 4096", "eviction"),
    "priority-scan": Plant(
        "O(n) victims, PRIORITY", _scan("PRIORITY", "claim", _IN_C), "times as long with 4096", "eviction"
    ),
    "lru-loop": Plant("O(n) victims, LRU, in Python", _scan("LRU", "claim", _IN_PYTHON), "bytecodes", "eviction"),
    "lru-find": Plant("O(n) lookups, LRU", _scan("LRU", "find", _IN_C), "times as long with 4096", "eviction"),
    # Content.
    "wrong-row": Plant(
        "a wrong row in every 1,000th lookup",
        _damage("assemble", _every(1000), _SPOILT),
        "not what was stored",
        "long_run",
    ),
    "wrong-row-10000": Plant(
        "a wrong row in every 10,000th lookup",
        _damage("assemble", _every(10_000), _SPOILT),
        "not what was stored",
        "long_run",
    ),
    "wrong-miss": Plant(
        "every 1,000th lookup finds nothing",
        _damage("lookup", _every(1000), "result[:] = self.keys_values_wm_size_list[:] = [MISS for _ in result]"),
        "lookup returned -1",
        "long_run",
    ),
    "wrong-hash": Plant(
        "every 1,000th hash is another's",
        _damage("hash_states", _every(1000), "result = [key + 1 for key in result]"),
        "hash_states returned other keys",
        "long_run",
    ),
    "one-wrong": Plant(
        "one wrong row of each manager, early",
        _damage("assemble", "self._calls == 5", _SPOILT),
        "was never stored",
        "test_replay and new",
    ),
    "one-stale": Plant(
        "one context of another key in each manager",
        """

def _planted(original):
    def planted(self, envs, keys, scope):
        keys = list(keys)
        stored = [key for key in self.recur_pool if key not in keys] if scope is Scope.NODE else []
        if stored and not getattr(self, "_was_stale", False) and original(self, envs, keys, scope)[0] > 0:
            self._was_stale = True
            keys[0] = stored[0]
        return original(self, envs, keys, scope)

    return planted


KVCacheManager.lookup = _planted(KVCacheManager.lookup)
""",
        "stale hit",
        "test_replay and new",
    ),
}
