"""Gather, move and scatter: every implementation against a reference that moves one token at a time, in float64."""

import importlib.util
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbench.measure.counters import Counts, OperationCounter
from kvcache.kernels import NULL_PAGE, ZERO_PAGE, Correction, TorchKernels, make_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FIRST = max(ZERO_PAGE, NULL_PAGE) + 1  # row that can belong to an entry
FORMS = NO_SHIFTS, SHIFT_PER_ROW, SHARED_SHIFT = "no shifts", "a shift per row", "a shared shift"

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
forms = pytest.mark.parametrize("form", FORMS)
# n, B and W: one element, odd, a multiple of 16 bytes or not, a block of Triton's and more than one.
shapes = st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([1, 3, 7, 8, 24, 100, 1024, 1030, 2049]))


@contextmanager
def triton_kernels(interpreted):
    """A copy of the module with or without Triton's interpreter, whatever was imported before."""
    with pytest.MonkeyPatch.context() as patch:
        if interpreted:
            patch.setenv("TRITON_INTERPRET", "1")
        else:
            patch.delenv("TRITON_INTERPRET", raising=False)
        pytest.importorskip("triton", reason="triton is not installed")
        spec = importlib.util.find_spec("kvcache.kernels.triton")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module", params=["torch", "compiled", "triton"])
def implementation(request):
    if request.param == "torch":
        yield TorchKernels
    elif request.param == "compiled":
        if DEVICE != "cpu":
            pytest.skip("compiled kernels are a CPU's")
        yield pytest.importorskip("kvcache.kernels.cpu").CpuKernels
    else:
        with triton_kernels(interpreted=DEVICE == "cpu") as module:
            yield module.TritonKernels


MEGABYTE = 1 << 20
FIRST_TOKEN, BEHIND = 1, 2  # tokens of a batch in front of those that are moved, and behind them


@dataclass
class Case:
    """What kernels are given: the pool ``[N, W]``, an index ``[n, B]``, a batch ``[C, B, H, T, D]``, shifts or none."""

    pool: torch.Tensor
    index: torch.Tensor
    batch: torch.Tensor
    shifts: torch.Tensor | None = None
    shift_index: torch.Tensor | None = None

    @property
    def tokens(self):
        """The batch's tokens that are moved, ``[n, B, W]``."""
        return tokens_of(self.batch)[FIRST_TOKEN : FIRST_TOKEN + len(self.index)]

    @property
    def others(self):
        """Those that are not."""
        all_tokens = tokens_of(self.batch)
        return torch.cat([all_tokens[:FIRST_TOKEN], all_tokens[FIRST_TOKEN + len(self.index) :]])

    @property
    def nbytes(self):
        return self.index.numel() * self.pool.shape[1] * self.pool.itemsize

    def correction(self):
        return None if self.shifts is None else Correction(self.shifts, self.shift_index)

    def gather(self, kernels):
        kernels.gather(self.pool, self.index, self.batch, FIRST_TOKEN, self.correction())

    def move(self, kernels, places):
        """Only some of the tokens: their flat places within ``index``."""
        correction = self.correction()
        if correction is not None:
            by = self.shift_index.expand_as(self.index).reshape(-1)[places]
            correction = Correction(self.shifts, by)
        index, rows = self.index.reshape(-1)[places], self.index.shape[1]
        kernels.move(self.pool, index, self.batch, places + FIRST_TOKEN * rows, correction)

    def scatter(self, kernels):
        kernels.scatter(self.pool, self.index, self.batch, FIRST_TOKEN)

    def clone(self):
        return Case(*(None if each is None else each.clone() for each in vars(self).values()))

    def same(self, other, *names):
        """Are these tensors of two cases the same, bit for bit?"""
        pairs = [(getattr(self, name), getattr(other, name)) for name in names]
        return all(left is right or same_bits(left, right) for left, right in pairs)


def tokens_of(batch):
    """``[C, B, H, T, D]`` as tokens ``[T, B, W]``, a copy."""
    return batch.permute(3, 1, 0, 2, 4).flatten(2).clone(memory_format=torch.contiguous_format)


def batch_of(tokens):
    """A batch ``[C, B, H, T, D]`` of tokens ``[n, B, W]``, with NaN in front and behind."""
    n, rows, width = tokens.shape
    kinds = 2 if width % 2 == 0 else 1
    heads = next(part for part in (2, 3, 5, 1) if width // kinds % part == 0)
    head_dim = width // kinds // heads
    shape = kinds, rows, heads, FIRST_TOKEN + n + BEHIND, head_dim
    batch = torch.full(shape, torch.nan, dtype=tokens.dtype, device=tokens.device)
    batch[:, :, :, FIRST_TOKEN : FIRST_TOKEN + n] = tokens.view(n, rows, kinds, heads, head_dim).permute(2, 1, 3, 0, 4)
    return batch


def gather_case(shape, form, dtype, seed=0):
    """Tokens are NaN: nothing of them may remain. Rows are gathered repeatedly, the zero page among them."""
    n, B, W = shape
    rng = np.random.default_rng(seed)
    rows = rng.integers(FIRST, FIRST + 5)
    index = on_device(rng.integers(0, rows, (n, B)))
    tokens = torch.full(shape, torch.nan, dtype=dtype, device=DEVICE)
    return Case(pool_of(rng, (rows, W), dtype), index, batch_of(tokens), *shifts_of(rng, shape, form, dtype))


def scatter_case(shape, dtype, seed=0):
    """No row is written to twice, but for ``NULL_PAGE``; two or more are not written to."""
    n, B, W = shape
    rng = np.random.default_rng(seed)
    rows = FIRST + n * B + 2
    index = rng.permutation(np.arange(FIRST, rows))[: n * B].reshape(n, B)
    index[rng.random((n, B)) < 0.3] = NULL_PAGE
    tokens = content(rng, shape, dtype)
    return Case(pool_of(rng, (rows, W), dtype), on_device(index), batch_of(tokens))


def pool_of(rng, shape, dtype):
    pool = content(rng, shape, dtype)
    pool[ZERO_PAGE] = 0
    return pool


def shifts_of(rng, shape, form, dtype):
    if form == NO_SHIFTS:
        return None, None
    n, B, W = shape
    shifts = content(rng, (rng.integers(1, 5), W), dtype)
    shifts[0] = 0
    return shifts, on_device(rng.integers(0, len(shifts), (n, 1 if form == SHARED_SHIFT else B)))


def content(rng, shape, dtype):
    """Numbers of all magnitudes, and negative zeros."""
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        # Where a GPU rounds to bfloat16, Triton's interpreter cuts off: sums of these need neither.
        values = rng.integers(-100, 101, shape).astype(np.float64)
    else:
        values = rng.standard_normal(shape) * 2.0 ** rng.integers(-10, 10, shape)
    values[rng.random(shape) < 0.1] = -0.0
    return torch.from_numpy(values).to(DEVICE, dtype)


def on_device(index):
    return torch.from_numpy(index).to(DEVICE)


def expected_gather(case):
    pool, out, index = numbers(case.pool), np.empty(case.tokens.shape), case.index.tolist()
    for i, b in np.ndindex(*case.index.shape):
        out[i, b] = pool[index[i][b]]
        if case.shifts is not None:
            out[i, b] += numbers(case.shifts)[case.shift_index.expand_as(case.index).tolist()[i][b]]
    return torch.from_numpy(out).to(DEVICE, case.pool.dtype)


def expected_scatter(case):
    pool, source, index = numbers(case.pool), numbers(case.tokens), case.index.tolist()
    for i, b in np.ndindex(*case.index.shape):
        pool[index[i][b]] = source[i, b]
    return torch.from_numpy(pool).to(DEVICE, case.pool.dtype)


def numbers(tensor):
    """In float64, where the sum of two is so exact that rounding it again is as good as rounding once."""
    return tensor.to("cpu", torch.float64, copy=True).numpy()


def same_bits(left, right):
    return left.shape == right.shape and torch.equal(bits(left), bits(right))


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8)


def kept(pool):
    """The rows whose content anybody relies on."""
    return pool[[row for row in range(len(pool)) if row != NULL_PAGE]]


@dtypes
@settings(max_examples=40)
@given(shape=shapes, form=st.sampled_from(FORMS), seed=st.integers(0, 2**32 - 1))
def test_gather(implementation, dtype, shape, form, seed):
    case = gather_case(shape, form, dtype, seed)
    before = case.clone()
    case.gather(implementation())
    assert same_bits(case.tokens, expected_gather(before))
    assert case.others.isnan().all()
    assert case.same(before, "pool", "index", "shifts", "shift_index")


@dtypes
@settings(max_examples=40)
@given(shape=shapes, form=st.sampled_from(FORMS), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_move(implementation, dtype, shape, form, seed, data):
    case = gather_case(shape, form, dtype, seed)
    wanted = tokens_of(case.batch)
    flat = wanted[FIRST_TOKEN : FIRST_TOKEN + len(case.index)].reshape(-1, shape[2])
    places = data.draw(st.lists(st.integers(0, max(0, len(flat) - 1)), unique=True, max_size=len(flat)))
    places = torch.tensor(places, dtype=torch.int64, device=DEVICE)
    flat[places] = expected_gather(case).reshape(-1, shape[2])[places]
    before = case.clone()
    case.move(implementation(), places)
    assert same_bits(case.tokens.reshape(-1, shape[2]), flat)
    assert case.others.isnan().all()
    assert case.same(before, "pool", "index", "shifts", "shift_index")


@dtypes
@settings(max_examples=40)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
def test_scatter(implementation, dtype, shape, seed):
    case = scatter_case(shape, dtype, seed)
    before = case.clone()
    case.scatter(implementation())
    assert same_bits(kept(case.pool), kept(expected_scatter(before)))
    assert not case.pool[ZERO_PAGE].any()
    assert case.same(before, "index", "batch")


def test_batches_of_all_sizes_can_take_turns(implementation):
    kernels = implementation()
    for n, B in [(1, 3), (4, 2), (2, 2), (1, 1), (4, 4)]:
        for form in [SHARED_SHIFT, NO_SHIFTS, SHIFT_PER_ROW]:
            case = gather_case((n, B, 6), form, torch.float32, seed=n)
            case.gather(kernels)
            assert same_bits(case.tokens, expected_gather(case))
        case = scatter_case((n, B, 6), torch.float32, seed=n)
        expected = expected_scatter(case)
        case.scatter(kernels)
        assert same_bits(kept(case.pool), kept(expected))


def test_a_pool_may_have_more_elements_than_an_int32_can_count(implementation):
    width, kernels = 1024, implementation()
    rows = 2**31 // width + 3
    pool = torch.empty(rows, width, dtype=torch.float16, device=DEVICE)  # a CPU has memory for what is touched only
    index = torch.tensor([[rows - 1, rows - 2]], device=DEVICE)
    case = Case(pool, index, batch_of(torch.randn(1, 2, width, device=DEVICE).half()))
    source = case.tokens
    case.scatter(kernels)
    assert same_bits(pool[index], source)
    case.batch.fill_(torch.nan)
    case.gather(kernels)
    assert same_bits(case.tokens, source)


class TestTorch:
    @pytest.mark.parametrize(
        ("direction", "form"),
        [("gather", NO_SHIFTS), ("gather", SHIFT_PER_ROW), ("gather", SHARED_SHIFT), ("scatter", NO_SHIFTS)],
    )
    def test_operations_are_few_and_a_second_call_allocates_nothing(self, direction, form):
        case = scatter_case((4, 3, 8), torch.float32)
        if direction == "gather":
            case = gather_case((4, 3, 8), form, torch.float32)
        kernels = TorchKernels()
        getattr(case, direction)(kernels)
        with OperationCounter() as counter:
            getattr(case, direction)(kernels)
        assert counter.counts.tensor_ops <= (2 if form == NO_SHIFTS else 4)
        assert counter.counts.synchronisations == counter.counts.allocations == 0

    def test_scratch_memory_is_that_of_the_largest_batch(self):
        kernels = TorchKernels()
        gather_case((4, 3, 8), NO_SHIFTS, torch.float32).gather(kernels)
        assert kernels.nbytes == 4 * 3 * 8 * 4
        gather_case((4, 3, 8), SHIFT_PER_ROW, torch.float32).gather(kernels)
        gather_case((1, 3, 8), SHIFT_PER_ROW, torch.float32).gather(kernels)
        assert kernels.nbytes == 2 * 4 * 3 * 8 * 4


class TestTriton:
    def test_each_call_is_one_launch_and_nothing_else(self, monkeypatch):
        grids = []

        class Kernel:
            def __getitem__(self, grid):
                grids.append(grid)
                return lambda *arguments: None

        with triton_kernels(interpreted=True) as module:
            monkeypatch.setattr(module, "_gather", Kernel())
            monkeypatch.setattr(module, "_scatter", Kernel())
            kernels = module.TritonKernels()
        cases = [gather_case((4, 3, 2049), form, torch.float32) for form in FORMS]
        with OperationCounter() as counter:
            for case in cases:
                case.gather(kernels)
                case.scatter(kernels)
        assert grids == [(12, 3)] * 6
        assert counter.counts == Counts(tensor_ops=6, bytes_copied=6 * cases[0].nbytes)  # those six
        assert kernels.nbytes == 0

    def test_nothing_is_written_to_trash(self):
        with triton_kernels(interpreted=DEVICE == "cpu") as module:
            case = scatter_case((2, 2, 5), torch.float32)
            case.index.fill_(NULL_PAGE)
            before = case.clone()
            case.scatter(module.TritonKernels())
        assert case.same(before, "pool")

    def test_what_is_not_contiguous_is_refused(self):
        with triton_kernels(interpreted=True) as module:
            case = gather_case((2, 2, 6), NO_SHIFTS, torch.float32)
            case.pool = case.pool[:, ::2]
            with pytest.raises(ValueError, match="addresses"):
                case.gather(module.TritonKernels())

    @dtypes
    @pytest.mark.parametrize(("name", "shifted"), [("_gather", False), ("_gather", True), ("_scatter", False)])
    @pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
    def test_it_compiles_without_a_gpu_to_moves_of_16_bytes(self, name, shifted, dtype, monkeypatch, tmp_path):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        with triton_kernels(interpreted=False) as module:
            program = compiled(getattr(module, name), shifted, dtype)
        assert "ld.global.v4.b32" in program
        assert "st.global.v4.b32" in program
        assert "ld.global.b16" not in program


def compiled(kernel, shifted, dtype):
    """PTX of a kernel for an H100, as launched on aligned memory: 8 heads of 96 elements."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    element = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}[dtype]
    constants = {"block": 1024, "heads": 8, "head_dim": 96}
    constants |= dict.fromkeys(("places", *(() if shifted else ("shifts", "shift_index"))))
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    numbers = dict.fromkeys(("width", "sharing", "first", "rows", "tokens"), "i32")
    types = {"index": "*i64", "shift_index": "*i64", **numbers}
    types = {each: types.get(each, element) for each in kernel.arg_names} | dict.fromkeys(constants, "constexpr")
    aligned = [place for place, (each, kind) in enumerate(types.items()) if kind[0] == "*" or each == "width"]
    attributes = {(place,): [["tt.divisibility", 16]] for place in aligned}
    source = ASTSource(kernel, types, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
@forms
def test_the_host_does_not_wait_for_the_device(implementation, form):
    case, kernels = gather_case((4, 3, 8), form, torch.float32), implementation()
    torch.cuda.set_sync_debug_mode("error")
    try:
        case.gather(kernels)
        case.scatter(kernels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_a_cpu_has_compiled_kernels():
    from kvcache.kernels.cpu import CpuKernels

    assert type(make_kernels("cpu")) is CpuKernels


@pytest.mark.parametrize("missing", ["kvcache.kernels.cpu", "kvcache.kernels._cpu_kernels"])
def test_a_cpu_has_torchs_kernels_where_none_were_compiled(monkeypatch, missing):
    monkeypatch.delitem(sys.modules, "kvcache.kernels.cpu", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert type(make_kernels("cpu")) is TorchKernels


class TestCompiledKernels:
    """What torch's kernels leave to torch: checks, and being counted."""

    @pytest.fixture
    def module(self):
        return pytest.importorskip("kvcache.kernels.cpu")

    def test_both_have_the_same_null_page(self, module):
        assert module.compiled.NULL_PAGE == NULL_PAGE

    @pytest.mark.parametrize("row", [-1, 7])
    @forms
    def test_a_row_that_is_not_there(self, module, form, row):
        case = gather_case((2, 3, 4), form, torch.float32)
        case.pool = case.pool[:7] if len(case.pool) > 7 else torch.ones(7, 4)
        case.index = torch.tensor([[0, 1, 0], [1, 0, row]])
        with pytest.raises(IndexError, match=f"row {row} is not in 0..6"):
            case.gather(module.CpuKernels())
        assert case.tokens.isnan().all()
        before = case.clone()
        with pytest.raises(IndexError, match=f"row {row} is not in 0..6"):
            case.scatter(module.CpuKernels())
        assert case.same(before, "pool")

    @pytest.mark.parametrize("size", [2**62, 2**63 - 1, 2**63, 2**64 - 1])
    def test_numbers_whose_product_is_no_memory(self, module, size):
        """Nothing is read or written: addresses are computed from these."""
        case = gather_case((2, 3, 4), SHARED_SHIFT, torch.float32)
        index = torch.zeros(3, dtype=torch.int64)
        pool, zero, batch, shifts = (each.data_ptr() for each in (case.pool, index, case.batch, case.shifts))
        # Rows of the pool and tokens; then C, B, H, T and bytes of a head.
        right = {"rows": 3, "count": 3, "C": 2, "B": 3, "H": 2, "T": 5, "bytes": 4}
        for wrong in right:
            rows, count, *sizes = (right | {wrong: size}).values()
            of_batch = batch, *sizes, 0, 0
            corrected = shifts, 1, zero, 1, module.compiled.FLOAT
            for name, added in (("gather", ()), ("scatter", ()), ("gather_shifted", corrected)):
                with pytest.raises(ValueError, match="there is no memory of"):
                    getattr(module.compiled, name)(pool, rows, zero, count, 1, *added, *of_batch)
        of_batch = batch, *list(right.values())[2:], 0, 0
        with pytest.raises(ValueError, match="there is no memory of"):
            module.compiled.gather_shifted(pool, 3, zero, 3, 1, shifts, size, zero, 1, module.compiled.FLOAT, *of_batch)

    def test_rows_of_unequal_lengths_are_refused(self, module):
        case = gather_case((2, 3, 4), NO_SHIFTS, torch.float32)
        zero, pool, batch = (each.data_ptr() for each in (torch.zeros(4, dtype=torch.int64), case.pool, case.batch))
        with pytest.raises(IndexError, match="4 tokens of 3 rows"):
            module.compiled.gather(pool, 3, zero, 4, 1, batch, 2, 3, 2, 5, 4, 0, 0)
        assert case.tokens.isnan().all()

    @pytest.mark.parametrize(("first", "count"), [(5, 3), (4, 6), (0, 18), (2**62, 3)])
    def test_tokens_that_are_not_in_the_batch(self, module, first, count):
        case = gather_case((2, 3, 4), NO_SHIFTS, torch.float32)
        index, batch = torch.zeros(count // 3, 3, dtype=torch.int64), torch.zeros(2, 3, 2, 5, 1)
        for move in (module.CpuKernels().gather, module.CpuKernels().scatter):
            with pytest.raises(IndexError, match=r"tokens of 3 rows, from \d+ on, are not in 0\.\.4"):
                move(case.pool, index, batch, first)

    @pytest.mark.parametrize("place", [-1, 15])
    def test_a_place_that_is_not_in_the_batch(self, module, place):
        case, batch = gather_case((2, 3, 4), NO_SHIFTS, torch.float32), torch.zeros(2, 3, 2, 5, 1)
        with pytest.raises(IndexError, match=f"row {place} is not in 0..14"):
            module.CpuKernels().move(case.pool, torch.tensor([0]), batch, torch.tensor([place]))
        with pytest.raises(ValueError, match="places"):
            module.CpuKernels().move(case.pool, torch.tensor([0]), batch, torch.tensor([0, 1]))

    def test_a_shift_that_is_not_there(self, module):
        case = gather_case((2, 3, 4), SHARED_SHIFT, torch.float32)
        case.shift_index = torch.tensor([[0], [len(case.shifts)]])
        with pytest.raises(IndexError, match=f"row {len(case.shifts)} is not in"):
            case.gather(module.CpuKernels())
        assert case.tokens.isnan().all()

    @pytest.mark.parametrize(
        "change",
        [
            {"batch": torch.zeros(2, 3, 2, 2, 1)},
            {"batch": torch.zeros(2, 4, 2, 5, 1)},
            {"batch": torch.zeros(2, 3, 2, 5, 2)},
            {"batch": torch.zeros(2, 3, 2, 5, 1, dtype=torch.float16)},
            {"batch": torch.zeros(2, 3, 5, 2, 1).transpose(2, 3)},
            {"batch": torch.zeros(2, 3, 2, 5, 1, device="meta")},
            {"pool": torch.zeros(9, 5)},
            {"pool": torch.zeros(9, 8)[:, ::2]},
            {"index": torch.zeros(2, 3, dtype=torch.int32)},
            {"index": torch.zeros(3, 2, dtype=torch.int64)},
            {"shifts": torch.zeros(4, 5)},
            {"shifts": torch.zeros(4, 4, device="meta")},
            {"shift_index": torch.zeros(1, 1, dtype=torch.int64)},
            {"shift_index": torch.zeros(2, 1, dtype=torch.int32)},
        ],
        ids=lambda change: f"{next(iter(change))} {tuple(next(iter(change.values())).shape)}",
    )
    def test_what_does_not_fit_is_refused(self, module, change):
        case = gather_case((2, 3, 4), SHARED_SHIFT, torch.float32)
        vars(case).update(change)
        with pytest.raises((ValueError, RuntimeError, IndexError)):
            case.gather(module.CpuKernels())
        if not set(change) & {"shifts", "shift_index"}:
            with pytest.raises((ValueError, RuntimeError, IndexError)):
                case.scatter(module.CpuKernels())

    @pytest.mark.parametrize(("width", "threads"), [(4096, 1), (4096, 3), (4080, 1)], ids=["lines", "threads", "parts"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
    @forms
    def test_more_bytes_than_are_written_through_caches(self, module, form, dtype, width, threads, monkeypatch):
        """Runs of tokens that are not all as long; some written past the caches, some by several threads."""
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        case = gather_case((13 * MEGABYTE // (3 * width * dtype.itemsize), 3, width), form, dtype)
        wanted = case.clone()
        assert module._threads(case.nbytes) == threads
        wanted.gather(TorchKernels())
        case.gather(module.CpuKernels())
        assert case.same(wanted, "batch", "pool", "index", "shifts", "shift_index")
        case.batch.fill_(torch.nan)
        count = case.index.numel()
        places = torch.arange(count).view(-1, 3).T.reshape(-1)  # row by row
        case.move(module.CpuKernels(), places[places % 7 > 0])
        case.move(module.CpuKernels(), places[places % 7 == 0])
        assert case.same(wanted, "batch")
        case = scatter_case((count // 3, 3, width), dtype)
        wanted = case.clone()
        wanted.scatter(TorchKernels())
        case.scatter(module.CpuKernels())
        assert same_bits(kept(case.pool), kept(wanted.pool))
        assert case.same(wanted, "index", "batch")

    @pytest.mark.parametrize("tokens", [1, 80], ids=["few", "past the caches"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_all_halves_are_added_and_rounded_as_torch_does(self, module, dtype, tokens):
        """Every half, and each added to others: infinities, the smallest numbers, sums halfway between two halves."""
        every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
        pool = torch.stack([torch.zeros_like(every), every])
        shifts = torch.stack([pool[0], *(every[torch.randperm(2**16)] for _ in range(2)), every])
        index, by = torch.ones(tokens, 1, dtype=torch.int64), torch.arange(tokens)[:, None] % 4
        for heads, tail in ((16, 0), (16, 5)):  # with five halves of a head that are no whole vector
            width = 2**16 - tail * heads
            batches = [torch.zeros(1, 1, heads, tokens, width // heads, dtype=dtype) for _ in range(2)]
            correction = Correction(shifts[:, :width].contiguous(), by)
            for kernels, batch in zip((TorchKernels(), module.CpuKernels()), batches, strict=True):
                kernels.gather(pool[:, :width].contiguous(), index, batch, 0, correction)
            wanted, got = batches
            assert same_bits(wanted.nan_to_num(7.0, torch.inf, -torch.inf), got.nan_to_num(7.0, torch.inf, -torch.inf))
            assert torch.equal(wanted.isnan(), got.isnan())

    def test_a_processor_without_vectors_of_halves_adds_them_by_torch(self, module, monkeypatch):
        case = gather_case((2, 3, 4), SHIFT_PER_ROW, torch.bfloat16)
        wanted = case.clone()
        monkeypatch.delitem(module._ADDED, torch.bfloat16, raising=False)
        case.gather(module.CpuKernels())
        wanted.gather(TorchKernels())
        assert case.same(wanted, "batch")
        with pytest.raises(ValueError, match="elements of type 9 cannot be added"):
            module.compiled.gather_shifted(0, 0, 0, 0, 1, 0, 0, 0, 1, 9, *[0] * 8)

    @pytest.mark.parametrize(("megabytes", "threads"), [(0, 1), (7.9, 1), (8, 2), (12, 3), (1000, 5)])
    def test_torchs_threads_take_part_where_there_is_enough_for_each(self, module, megabytes, threads, monkeypatch):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
        assert module._threads(int(megabytes * MEGABYTE)) == threads
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        assert module._threads(int(megabytes * MEGABYTE)) == 1

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
    def test_shifts_of_another_dtype_are_added_as_torch_does(self, module, dtype):
        case = gather_case((2, 3, 4), SHIFT_PER_ROW, torch.float32)
        case.shifts = case.shifts.to(dtype)
        wanted = case.clone()
        wanted.gather(TorchKernels())
        case.gather(module.CpuKernels())
        assert case.same(wanted, "batch")

    def test_a_write_increments_the_tensors_version(self, module):
        """Autograd must find a change of what a gradient needs."""
        case = gather_case((2, 3, 4), NO_SHIFTS, torch.float32)
        case.gather(module.CpuKernels())
        case.batch.nan_to_num_()
        for changed, act in ((case.batch, case.gather), (case.pool, case.scatter)):
            factor = torch.ones_like(changed, requires_grad=True)
            product = (factor * changed).sum()
            act(module.CpuKernels())
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                product.backward()

    @forms
    def test_each_is_one_operation(self, module, form):
        case, kernels = gather_case((3, 2, 24), form, torch.float32), module.CpuKernels()
        with OperationCounter() as counter:
            case.gather(kernels)
        assert counter.counts == Counts(tensor_ops=1, bytes_copied=case.nbytes)
        with OperationCounter() as counter:
            case.scatter(kernels)
        assert counter.counts == Counts(tensor_ops=1, bytes_copied=case.nbytes)
        case.gather(kernels)
        assert counter.counts.tensor_ops == 1  # the observer was removed


def test_cuda_has_tritons_kernels(monkeypatch):
    installed = SimpleNamespace(TritonKernels=type("TritonKernels", (TorchKernels,), {}))
    monkeypatch.setitem(sys.modules, "kvcache.kernels.triton", installed)
    assert type(make_kernels("cuda")) is installed.TritonKernels
    assert type(make_kernels(torch.device("cuda", 0))) is installed.TritonKernels


def test_cuda_has_torchs_kernels_where_triton_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "kvcache.kernels.triton", raising=False)
    assert type(make_kernels("cuda")) is TorchKernels
