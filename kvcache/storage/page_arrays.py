"""Arithmetic on the arrays of paged storage, in NumPy. ``_page_arrays.c`` does the same where it could be compiled.

Arrays are int64, C-contiguous, writable and none of them another's view; sequences are lists or tuples of ints. Neither
knows of entries' contents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvcache.kernels import NULL_PAGE, ZERO_PAGE

__all__ = ["find_changed", "inherit", "place", "release"]


def inherit(
    tables: np.ndarray,
    references: np.ndarray,
    sizes: Sequence[int],
    parents: Sequence[int],
    first: Sequence[int],
    counts: Sequence[int],
    inherited: np.ndarray,
) -> list[int]:
    """Make the tables of new entries from those that they grew from, and count what they hold.

    Args:
        tables: of all entries, ``[E, T_max + 1]``: a table ends in the column before the last.
        references: of all pages, ``[N]``.
        sizes: tokens of each entry, ``[E]``.
        parents: the entries ``[n]`` that new ones grow from.
        first: the first token of each context that is kept.
        counts: how many tokens are.
        inherited: ``[n, T_max + 1]``, written: a new entry's table, ``ZERO_PAGE`` where its new tokens will be.

    Returns:
        How many tokens of each are new.
    """
    longest, most = tables.shape[1] - 1, max(counts)
    # By how much a table moves on: what it moves into view is new.
    advances = [at + count - sizes[parent] for parent, at, count in zip(parents, first, counts, strict=True)]
    of_parents = tables.take(parents, 0)
    inherited.fill(ZERO_PAGE)
    for table, of_parent, advance, count in zip(inherited, of_parents, advances, counts, strict=True):
        begin = max(longest - count, -advance)
        end = longest - max(advance, 0)
        if begin < end:
            table[begin:end] = of_parent[begin + advance : end + advance]
    # One-dimensional: add.at is several times as fast then (NumPy 2.4).
    np.add.at(references, inherited[:, longest - most : longest].ravel(), 1)
    references[ZERO_PAGE] = 0
    return [min(max(advance, 0), count) for advance, count in zip(advances, counts, strict=True)]


def release(
    pages: np.ndarray,
    references: np.ndarray,
    owners: np.ndarray,
    charges: np.ndarray,
    free: np.ndarray,
    free_count: int,
) -> int:
    """Count one table less for each of these pages, and free those that no table holds any more.

    Args:
        pages: ``[n]``; ``ZERO_PAGE`` among them does not count.
        references: of all pages, ``[N]``.
        owners: who is charged for a page, ``[N]``.
        charges: for how many pages each owner is, ``[O]``.
        free: a stack ``[N]`` of free pages. The lowest of those that come free together lies on top.
        free_count: how many there are.

    Returns:
        How many are free afterwards.
    """
    np.subtract.at(references, pages, 1)
    references[ZERO_PAGE] = 0
    freed = np.unique(pages[references[pages] == 0])
    freed = freed[freed != ZERO_PAGE][::-1]
    end = free_count + len(freed)
    free[free_count:end] = freed
    charges -= np.bincount(owners[freed], minlength=len(charges))
    return end


def place(
    tables: np.ndarray,
    inherited: np.ndarray,
    entries: Sequence[int],
    new: Sequence[int],
    owner_of: Sequence[int],
    references: np.ndarray,
    serials: np.ndarray,
    owners: np.ndarray,
    charges: np.ndarray,
    free: np.ndarray,
    free_count: int,
    serial: int,
    targets: np.ndarray,
) -> None:
    """Take free pages for the new tokens of entries, and write the entries' tables.

    Args:
        tables: of all entries, ``[E, T_max + 1]``.
        inherited: of the written ones, ``[n, T_max + 1]``.
        entries: which these are, ``[n]``.
        new: tokens of each that are new.
        owner_of: who is charged for an entry's pages, ``[E]``.
        references: of all pages, ``[N]``: 1 for those taken.
        serials: of all pages, ``[N]``: for those taken, ``serial`` and up in the order in which they are taken.
        owners: who is charged for a page, ``[N]``.
        charges: for how many pages each owner is, ``[O]``.
        free: a stack ``[N]``, with ``sum(new)`` pages at least.
        free_count: how many it has.
        serial: the first serial number that was never used.
        targets: ``[max(new), n]``, written: pages of the new tokens, the last in the last line; above those of
            an entry that has fewer, ``NULL_PAGE``. They are taken line by line.
    """
    most = len(targets)
    taken = np.arange(-most, 0)[:, None] >= -np.array(new)
    left = free_count - int(taken.sum())
    pages = free[left:free_count][::-1]
    references[pages] = 1
    serials[pages] = np.arange(serial, serial + len(pages))
    charged = np.array([owner_of[entry] for entry in entries])
    owners[pages] = np.broadcast_to(charged, taken.shape)[taken]
    charges += np.bincount(owners[pages], minlength=len(charges))
    targets.fill(NULL_PAGE)
    targets[taken] = pages
    if most:
        block = inherited[:, -1 - most : -1].T
        block[taken] = pages
    tables[np.array(entries)] = inherited


def find_changed(
    tables: np.ndarray,
    serials: np.ndarray,
    entries: Sequence[int],
    sizes: Sequence[int],
    held: np.ndarray,
    index: np.ndarray,
    changed: np.ndarray,
) -> int:
    """Find out which places of a batch hold other pages than they are to hold, and note that they hold them.

    Args:
        tables: of all entries, ``[E, T_max + 1]``.
        serials: of all pages, ``[N]``.
        entries: to be in the batch, ``[B]``, each from the first position on, ``ZERO_PAGE`` behind it.
        sizes: their tokens.
        held: serial numbers of the pages that the batch's places hold, ``[T, B]``; its first ``t`` lines are written.
        index: ``[t, B]``, written: which pages the places are to hold.
        changed: ``[t x B]``, written up to as many as there are: the flat places, ascending, that hold others.

    Returns:
        How many of them there are.
    """
    last = tables.shape[1] - 1  # the column behind a table's last is ZERO_PAGE
    columns = np.minimum(np.arange(len(index))[:, None] + (last - np.array(sizes)), last)
    index[:] = tables[np.array(entries), columns]
    wanted, there = serials.take(index), held[: len(index)]
    places = np.flatnonzero(wanted != there)
    changed[: len(places)] = places
    there[:] = wanted
    return len(places)
