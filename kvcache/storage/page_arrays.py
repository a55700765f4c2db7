"""Arithmetic on the arrays of paged storage, in NumPy. ``_page_arrays.c`` is the same in C, where it was compiled.

Arrays are int64, C-contiguous, writable and no views of one another. Sequences are lists or tuples of ints. The
functions work on page numbers only. Several take the same arguments:

    tables: of all entries, ``[E, T_max + 1]``: a table ends in the column before the last, which is ``ZERO_PAGE``.
    inherited: tables of new entries, ``[n, T_max + 1]``.
    references: of all pages, ``[N]``: number of tables that hold the page.
    serials: of all pages, ``[N]``: number of the page's content.
    owners: of all pages, ``[N]``: the storage that is charged for the page.
    charges: ``[O]``: number of pages charged to each storage.
    free: a stack ``[N]`` of free pages.
    free_count: number of pages in it.

A function has up to 13 arguments, because C receives plain arguments fastest. With an object it would look up each
attribute by name, at every call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvcache.kernels import NULL_PAGE, ZERO_PAGE

__all__ = ["find_changed", "inherit", "place", "release"]


def inherit(
    tables: np.ndarray, references: np.ndarray, sizes: Sequence[int], parents: Sequence[int],
    first: Sequence[int], counts: Sequence[int], inherited: np.ndarray,
) -> list[int]:  # fmt: skip
    """Make the tables of new entries from those of the entries they grew from, and count the references.

    Args:
        sizes: tokens of each entry, ``[E]``.
        parents: the entries ``[n]`` that new ones grow from.
        first: the first kept token of each context.
        counts: number of kept tokens.
        inherited: written: each new entry's table, ``ZERO_PAGE`` at its new tokens.

    Returns:
        Number of new tokens of each.
    """
    longest, most = tables.shape[1] - 1, max(counts)
    # Number of tokens by which each table moves on.
    advances = [at + count - sizes[parent] for parent, at, count in zip(parents, first, counts, strict=True)]
    of_parents = tables.take(parents, 0)
    inherited.fill(ZERO_PAGE)
    for table, of_parent, advance, count in zip(inherited, of_parents, advances, counts, strict=True):
        begin = max(longest - count, -advance)
        end = longest - max(advance, 0)
        if begin < end:
            table[begin:end] = of_parent[begin + advance : end + advance]
    # add.at is several times as fast on one dimension (NumPy 2.4).
    np.add.at(references, inherited[:, longest - most : longest].ravel(), 1)
    references[ZERO_PAGE] = 0
    return [min(max(advance, 0), count) for advance, count in zip(advances, counts, strict=True)]


def release(
    pages: np.ndarray, references: np.ndarray, owners: np.ndarray, charges: np.ndarray, free: np.ndarray,
    free_count: int,
) -> int:  # fmt: skip
    """Drop one reference to each of ``pages`` ``[n]`` but ``ZERO_PAGE``, and free the pages that no table holds.

    Of the pages freed together the lowest is on top of the stack.

    Returns:
        Number of free pages afterwards.
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
    tables: np.ndarray, inherited: np.ndarray, entries: Sequence[int], new: Sequence[int], owner_of: Sequence[int],
    references: np.ndarray, serials: np.ndarray, owners: np.ndarray, charges: np.ndarray, free: np.ndarray,
    free_count: int, serial: int, targets: np.ndarray,
) -> None:  # fmt: skip
    """Take free pages for the new tokens of entries, and write the entries' tables.

    Args:
        entries: to be written, ``[n]``.
        new: number of new tokens of each.
        owner_of: the storage of each entry, ``[E]``.
        references: set to 1 for taken pages.
        serials: set for taken pages, in the order in which they are taken: ``serial`` and up.
        free: with at least ``sum(new)`` pages.
        serial: the first unused serial number.
        targets: ``[max(new), n]``, written: pages of the new tokens, taken line by line, the last token in the last
            line. ``NULL_PAGE`` above the tokens of an entry with fewer.
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
    tables: np.ndarray, serials: np.ndarray, entries: Sequence[int], sizes: Sequence[int],
    held: np.ndarray, index: np.ndarray, changed: np.ndarray,
) -> int:  # fmt: skip
    """Find the places of a batch whose pages change, and record the new pages' serial numbers.

    Args:
        entries: of the batch, ``[B]``; each begins at the first position, with ``ZERO_PAGE`` behind it.
        sizes: their tokens.
        held: ``[T, B]``: serial numbers of the pages in the batch; its first ``t`` lines are written.
        index: ``[t, B]``, written: the new page of each place.
        changed: ``[t x B]``, its beginning is written: the flat places that change, row by row.

    Returns:
        Number of places that change.
    """
    last = tables.shape[1] - 1  # this column is ZERO_PAGE
    columns = np.minimum(np.arange(len(index))[:, None] + (last - np.array(sizes)), last)
    index[:] = tables[np.array(entries), columns]
    wanted, there = serials.take(index), held[: len(index)]
    rows, lines = (wanted != there).T.nonzero()
    places = lines * index.shape[1] + rows
    changed[: len(places)] = places
    there[:] = wanted
    return len(places)
