NULL_PAGE: int

def gather(pool: int, rows: int, index: int, count: int, out: int, row_bytes: int, /) -> None: ...
def gather_shifted(
    pool: int, rows: int, index: int, count: int, out: int, width: int,
    shifts: int, shift_rows: int, shift_index: int, sharing: int, /,
) -> None: ...  # fmt: skip
def scatter(pool: int, rows: int, index: int, count: int, source: int, row_bytes: int, /) -> None: ...
