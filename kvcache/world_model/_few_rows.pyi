ROWS: int
SUPPORTED: int

def linear(out: int, x: int, weights: int, bias: int, rows: int, inner: int, outer: int, block: int) -> None: ...
