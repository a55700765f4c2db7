NULL_PAGE: int
FLOAT: int
DOUBLE: int
BFLOAT16: int
FLOAT16: int
ADDS_HALVES: int

# ``batch`` is its address, C, B, H, T, bytes of D elements, the address of places or 0, and the first token.

def gather(pool: int, rows: int, index: int, count: int, threads: int, /, *batch: int) -> None: ...
def gather_shifted(
    pool: int, rows: int, index: int, count: int, threads: int,
    shifts: int, shift_rows: int, shift_index: int, sharing: int, type: int, /, *batch: int,
) -> None: ...  # fmt: skip
def scatter(pool: int, rows: int, index: int, count: int, threads: int, /, *batch: int) -> None: ...
def prefer_huge_pages(address: int, nbytes: int, /) -> None: ...
