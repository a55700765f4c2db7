"""Linear layers of a few rows: torch's results to the bit, or torch's own product."""

import pytest
import torch
from torch.nn import functional as F

from kvcache.world_model import few_rows
from kvcache.world_model.few_rows import FewRows, suits

needs_compiled = pytest.mark.skipif(few_rows.compiled is None, reason="_few_rows is not compiled, or no AVX2")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(rows, inner, outer):
    generator = torch.Generator().manual_seed(rows)
    return [torch.randn(shape, generator=generator) for shape in ((rows, inner), (outer, inner), (outer,))]


@needs_compiled
@pytest.mark.parametrize(("inner", "outer"), [(16, 8), (5, 13), (300, 31), (400, 1)])
@pytest.mark.parametrize("rows", [1, 7, 8])
@pytest.mark.parametrize("block", [1, 192])
def test_the_compiled_product_is_one(rows, inner, outer, block):
    x, weight, bias = drawn(rows, inner, outer)
    out = torch.full((rows + 1, outer), 7.0)
    few_rows._multiply(out, x, weight, bias, rows, block)
    wanted = F.linear(x.double(), weight.double(), bias.double())
    assert torch.allclose(out[:rows].double(), wanted, atol=1e-4)
    assert (out[rows] == 7).all()


@needs_compiled
def test_the_compiled_product_refuses_sizes_that_it_cannot_have():
    for sizes in ((0, 1, 1, 1), (9, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0)):
        with pytest.raises(ValueError, match="1 to 8 rows"):
            few_rows.compiled.linear(0, 0, 0, 0, *sizes)


@torch.no_grad()
@pytest.mark.parametrize(("inner", "outer"), [(256, 768), (256, 1024), (1024, 256), (768, 85), (300, 301)])
@pytest.mark.parametrize("rows", [1, 3, 5, 8, 9])
def test_results_have_torchs_bits(rows, inner, outer):
    x, weight, bias = drawn(rows, inner, outer)
    layer, wanted = FewRows(weight, bias), F.linear(x, weight, bias)
    assert torch.equal(layer(x), wanted)
    assert torch.equal(layer(x[:, None]), wanted[:, None])
    strided = x.t().contiguous().t()
    assert torch.equal(layer(strided), F.linear(strided, weight, bias))


@torch.no_grad()
@needs_compiled
def test_a_block_that_is_not_torchs_is_not_used(monkeypatch):
    monkeypatch.setattr(few_rows, "_BLOCKS", (7,))
    few_rows._block.cache_clear()
    assert few_rows._block(8, 512, 512) == 0
    few_rows._block.cache_clear()


@needs_compiled
def test_where_it_cannot_be_used_torch_multiplies(monkeypatch):
    x, weight, bias = drawn(8, 256, 256)
    layer = FewRows(weight, bias)

    def never(*args):
        raise AssertionError("the compiled product")

    monkeypatch.setattr(few_rows, "_multiply", never)
    monkeypatch.setattr(few_rows, "_block", lambda *shape: 128)
    with torch.no_grad(), pytest.raises(AssertionError):
        layer(x)
    learned = x.clone().requires_grad_()
    layer(learned).sum().backward()
    assert torch.allclose(learned.grad, weight.sum(0).expand(8, 256), atol=1e-4)
    with torch.no_grad():
        torch.set_num_threads(2)
        layer(x)
        torch.set_num_threads(1)
        with pytest.raises(RuntimeError):
            layer(x.double())
        with pytest.raises(RuntimeError):
            layer(x[:, :128])
        weight.data = weight.data.clone()
        assert torch.equal(layer(x), F.linear(x, weight, bias))


def test_which_weights_suit():
    weight, bias = torch.zeros(256, 256), torch.zeros(256)
    assert suits(weight, bias) == (few_rows.compiled is not None)
    for other in (
        (weight, None),
        (weight[:255], bias[:255]),
        (weight.half(), bias.half()),
        (weight.expand(2, 256, 256).transpose(0, 2), bias),
        (weight.to("meta"), bias.to("meta")),
    ):
        assert not suits(*other)
