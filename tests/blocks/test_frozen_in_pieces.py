"""Token-wise parts in pieces give what they give whole, for every family."""

import pytest
import torch
import torch.nn.functional as F

from lm4ve.blocks import LLMBlock
from lm4ve.blocks import frozen_in_pieces as pieces
from tests.helpers.families import FAMILIES


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of a token or two, whatever the size."""
    calls = []
    monkeypatch.setattr(pieces, 'FEWEST', 0)
    monkeypatch.setattr(pieces, 'rows_of_piece', lambda width: 2)
    apply = pieces._InPieces.apply
    monkeypatch.setattr(
        pieces._InPieces, 'apply', lambda *args: calls.append(args[0]) or apply(*args)
    )
    return calls


def run(block, x, **kwargs):
    x = x.clone().requires_grad_()
    out = block(x, **kwargs)
    out.square().sum().backward()
    return out.detach(), x.grad


@pytest.mark.parametrize('variant', FAMILIES)
def test_output_and_gradient_equal_the_whole(checkpoints, variant, small_pieces, monkeypatch):
    block = LLMBlock(checkpoints(variant), layers=(0, 1))
    x = torch.randn(2, 7, block.embed_dims)
    mask = torch.zeros(2, 7, dtype=torch.bool)
    mask[1, 4:] = True
    got = run(block, x, padding_mask=mask)
    layer = block.layers[0]
    parts = [
        m for m in layer.modules() if isinstance(m, (pieces.FrozenNorm, pieces.FrozenGatedMLP))
    ]
    # (llama4 has norms of queries and keys in layers with rotary embedding only.)
    assert len(small_pieces) >= (2 if variant != 'llama4_text' else 1) * len(parts)
    monkeypatch.undo()
    expected = run(block, x, padding_mask=mask)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_llamas_parts_are_done_so(checkpoints):
    layer = LLMBlock(checkpoints('llama')).layers[0]
    assert isinstance(layer.attention_norm, pieces.FrozenNorm)
    assert isinstance(layer.mlp, pieces.FrozenGatedMLP)
    trained = LLMBlock(checkpoints('llama'), trainable='all').layers[0]
    assert not any(isinstance(m, pieces.Frozen) for m in trained.modules())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_real_pieces_equal_plain_code(dtype):
    """Sizes at which it is done by itself; rows that do not divide evenly."""
    width = 4096
    rows = pieces.FEWEST * pieces.rows_of_piece(width) + 3
    gate = torch.randn(1, rows, width, dtype=dtype, requires_grad=True)
    up = torch.randn(1, rows, width, dtype=dtype, requires_grad=True)
    direction = torch.randn(1, rows, width, dtype=dtype)
    seen = []

    def function(a, b):
        seen.append(len(a))
        return F.silu(a) * b

    out = pieces.in_pieces(function, gate, up)
    assert seen[-1] == 3 and len(seen) == pieces.FEWEST + 1
    got = torch.autograd.grad(out, (gate, up), direction)
    expected_out = F.silu(gate) * up
    expected = torch.autograd.grad(expected_out, (gate, up), direction)
    torch.testing.assert_close(out, expected_out)
    torch.testing.assert_close(got, expected)


def test_an_input_without_gradient_gets_none(small_pieces):
    a, b = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
    pieces.in_pieces(torch.mul, a, b).sum().backward()
    torch.testing.assert_close(a.grad, b)
    assert b.grad is None and small_pieces


def test_only_the_inputs_are_kept(small_pieces):
    kept = []
    x = torch.randn(9, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        pieces.in_pieces(lambda t: t.exp().sin().exp(), x)
    assert kept == [(9, 4)]


def test_a_hook_on_a_part_fires_once(checkpoints, small_pieces):
    block = LLMBlock(checkpoints('llama'))
    fired = []
    for part in (block.layers[0].mlp, block.layers[0].mlp_norm):
        part.register_forward_hook(lambda m, a, out: fired.append(out.shape))
    run(block, torch.randn(2, 7, block.embed_dims))
    assert fired == [(2, 7, block.embed_dims)] * 2 and small_pieces


def test_second_derivatives_are_refused_not_wrong(small_pieces):
    x = torch.randn(6, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(
        pieces.in_pieces(torch.sin, x).square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()
