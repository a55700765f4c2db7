"""Which threads may call a cache: the first one that uses it, or with ``thread_safe`` all of them, one at a time."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar, cast

__all__ = ["OneThread", "ThreadError", "Turns", "exclusively", "join_copies", "join_threads", "make_thread_safe"]

Method = TypeVar("Method", bound=Callable[..., Any])

LONGEST_WAIT = 600.0  # seconds; an inference takes less, also where it compiles a model first

# Public calls of a backend, of a batch in progress, and of a pool.
_CALLS = (
    "is_stale", "clear_recur_cache", "clear_init_caches", "clear_all", "get_stats_summary", "reset_stats",
    "bytes_reserved", "position_shift", "release_thread", "get_init_cache", "set_init_cache", "get_recur_cache",
    "set_recur_cache", "get_wm_cache", "set_wm_cache", "hierarchical_get",
)  # fmt: skip
_BATCH_CALLS = ("supply", "assemble", "store", "row_context", "keys_values_wm", "keys_values_wm_list")
_POOL_CALLS = (
    "get", "set", "set_priority", "clear", "owner", "__len__", "__contains__", "__iter__", "__repr__",
    "slots_allocated", "bytes_reserved",
)  # fmt: skip


class ThreadError(RuntimeError):
    """A call of a cache by a thread that may not make it; the message names both threads and says what to do."""


class OneThread:
    """The thread that a cache belongs to: the first one that looks something up or stores it.

    A copy belongs to no thread yet. Only the thread itself makes one: another one's could be of the middle of a change.

    Attributes:
        ident: of the thread, as in ``threading.get_ident``; None until there is one.
        serves_all: whether ``Turns`` decide who may call and copy the cache.
    """

    __slots__ = ("_owner", "ident", "serves_all")

    def __init__(self) -> None:
        self.ident: int | None = None
        self.serves_all = False
        self._owner: dict[str, threading.Thread] = {}  # one at most: its ``setdefault`` needs no lock

    def __reduce__(self) -> tuple[Any, ...]:
        self.check_copy()
        return type(self), ()

    def check_copy(self) -> None:
        """Raise ThreadError where another thread may change the cache while the calling one copies it."""
        owner, caller = self._owner.get("thread"), threading.current_thread()
        if not self.serves_all and owner not in (None, caller) and owner.is_alive():
            raise ThreadError(
                f"this cache belongs to thread {_name(owner)}, and thread {_name(caller)} copies or pickles it: do it "
                "in its own thread, or call release_thread() there first"
            )

    def take(self) -> None:
        """The calling thread uses the cache. Raises ThreadError where it belongs to another one."""
        if get_ident() != self.ident:
            self._take()

    def check(self) -> None:
        """Raise ThreadError where the cache belongs to another thread than the calling one."""
        if get_ident() != self.ident:
            self._refuse()

    def release(self) -> None:
        """Let the next thread have the cache. ThreadError where another thread has it and has not ended."""
        owner = self._owner.get("thread")
        if owner is not None and owner.is_alive():
            self.check()
        self.ident = None
        self._owner.clear()

    def assign(self, thread: threading.Thread) -> None:
        """Give the cache to the calling thread, which has its lock."""
        self._owner["thread"], self.ident = thread, get_ident()

    def _take(self) -> None:
        self._owner.setdefault("thread", threading.current_thread())
        self._refuse()
        self.ident = get_ident()

    def _refuse(self) -> None:
        owner, caller = self._owner.get("thread"), threading.current_thread()
        if owner not in (None, caller):
            raise ThreadError(
                f"this cache belongs to thread {_name(owner)}, which used it first, and thread {_name(caller)} called "
                "it: build one cache for each thread, or build it with thread_safe=True; release_thread(), called by "
                "its thread, gives it to another one"
            )


def _name(thread: threading.Thread | None) -> str:
    return "(unknown)" if thread is None else f"{thread.name!r}{'' if thread.is_alive() else ' (ended)'}"


class Turns:
    """The lock of a thread-safe cache, and the thread whose batch is in progress.

    Args:
        thread: of the cache: whoever has the turn is that thread.
        outer: those of the cache through which alone this one is called; None where it is called itself.
    """

    def __init__(self, thread: OneThread, outer: Turns | None = None) -> None:
        self.outer = outer
        self._lock = threading.RLock()
        self._thread = thread
        thread.serves_all = True
        self._depth = 0  # of ``with`` blocks in each other
        self._has_users = False  # whether more than one thread had turns
        self._holder: threading.Thread | None = None  # the thread whose turn it was last
        self._batch_of: threading.Thread | None = None
        self._is_open = False  # whether that batch may still be written to

    def __reduce__(self) -> tuple[Any, ...]:
        return Turns.__new__, (Turns,), (self._thread, self.outer)  # not as arguments: they refer to this again

    def __setstate__(self, state: tuple[OneThread, Turns | None]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=LONGEST_WAIT):
            raise ThreadError(
                f"thread {_name(self._holder)} has this cache since more than {LONGEST_WAIT:.0f} s, and thread "
                f"{_name(threading.current_thread())} waits for it: leave exclusive() after each inference"
            )
        before, self._holder = self._holder, threading.current_thread()
        self._has_users |= before not in (None, self._holder)
        self._depth += 1
        self._thread.assign(self._holder)

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._lock.release()

    def check_copy(self) -> None:
        """Raise ThreadError where another thread may change the cache while the calling one pickles it."""
        if self.outer is not None:
            return self.outer.check_copy()
        is_held = self._depth and self._holder is threading.current_thread()
        if not is_held and (self._has_users or self._holder not in (None, threading.current_thread())):
            raise ThreadError(
                f"several threads use this cache, and thread {_name(threading.current_thread())} pickles it: do that "
                "within 'with cache.exclusive():'"
            )

    def begin_batch(self) -> bool:
        """A lookup begins a batch of the calling thread. Returns whether another thread may still write to the last."""
        is_taken_over = self._is_open and self._batch_of is not threading.current_thread()
        self._batch_of, self._is_open = threading.current_thread(), True
        return is_taken_over

    def end_batch(self) -> None:
        """The batch is stored."""
        self._is_open = False

    def check_batch(self) -> None:
        """Raise ThreadError where another thread looked up the batch in progress."""
        if self._batch_of not in (None, threading.current_thread()):
            raise ThreadError(
                f"thread {_name(self._batch_of)} has begun a batch since, and thread "
                f"{_name(threading.current_thread())} goes on with its own: hold 'with cache.exclusive():' from lookup "
                "to store"
            )


def make_thread_safe(cache: Any) -> None:
    """Let all threads call a backend and its pools, one at a time (see ``CacheBackend.exclusive``)."""
    turns = Turns(cache.thread)
    for each in (cache, *cache.init_pools, cache.recur_pool, cache.wm_pool):
        _lock(each, turns)


def join_threads(outer: Any, inner: Any) -> None:
    """Give a backend the threads of the one that it calls."""
    outer.thread = inner.thread
    if hasattr(inner, "turns"):
        _lock(outer, inner.turns)


def join_copies(inner: Any, outer: Any) -> None:
    """A thread-safe cache that is called through another one alone may be copied when that one may."""
    if hasattr(inner, "turns") and hasattr(outer, "turns"):
        inner.turns.outer = outer.turns


def exclusively(method: Method) -> Method:
    """A method of an object that has a ``cache``: it holds ``cache.exclusive()``."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.cache.exclusive():
            return method(self, *args, **kwargs)

    return cast(Method, call)


def _lock(each: Any, turns: Turns) -> None:
    kind: Any = type(each)
    each.turns = turns
    each.__class__ = _locked(kind)


@functools.cache
def _locked(cls: Any) -> Any:
    """The class with locked calls."""
    if hasattr(cls, "exclusive"):
        members = {name: _wrapped(cls, name, _turn) for name in _CALLS}
        members |= {name: _wrapped(cls, name, _turn_of_batch) for name in _BATCH_CALLS}
        members |= {"lookup": _lookup(cls), "store": _store(cls), "exclusive": lambda self: self.turns}
    else:
        members = {name: _wrapped(cls, name, _turn) for name in _POOL_CALLS}
    members = {name: member for name, member in members.items() if member is not None}
    # A pickle finds a class by its name, and this one has the name of the other.
    members |= {"__module__": cls.__module__, "__doc__": cls.__doc__, "__reduce_ex__": _reduced(cls)}
    members["__deepcopy__"] = _copied(cls)
    return type(cls)(cls.__name__, (cls,), members)


def _wrapped(cls: type, name: str, wrap: Callable[[Any], Any]) -> Any:
    member = getattr(cls, name, None)
    if isinstance(member, property):
        return property(wrap(member.fget), member.fset and wrap(member.fset))
    return wrap(member) if callable(member) else None


def _turn(call: Any) -> Any:
    @functools.wraps(call)
    def locked(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.turns:
            return call(self, *args, **kwargs)

    return locked


def _turn_of_batch(call: Any) -> Any:
    @functools.wraps(call)
    def locked(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.turns:
            self.turns.check_batch()
            return call(self, *args, **kwargs)

    return locked


def _lookup(cls: Any) -> Any:
    @functools.wraps(cls.lookup)
    def lookup(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.turns:
            if self.turns.begin_batch():
                self.renew_batch()
            return cls.lookup(self, *args, **kwargs)

    return lookup


def _store(cls: Any) -> Any:
    @functools.wraps(cls.store)
    def store(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.turns:
            self.turns.check_batch()
            cls.store(self, *args, **kwargs)
            self.turns.end_batch()

    return store


def _reduced(cls: type) -> Any:
    def reduce(self: Any, protocol: Any) -> Any:
        self.turns.check_copy()
        how: Any = object.__reduce_ex__(self, protocol)
        return _made, (cls,), *how[2:]

    return reduce


def _copied(cls: type) -> Any:
    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        with self.turns:
            made = memo[id(self)] = _made(cls)
            made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    return deepcopy


def _made(cls: type) -> Any:
    return object.__new__(_locked(cls))
