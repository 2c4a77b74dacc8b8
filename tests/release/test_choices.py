"""Which path the block takes never freezes a batch size: in exports and under a compiler."""

import pytest
import torch

from lm4ve.necks import LLMBlockNeck
from lm4ve.release.formats import trace, traceable
from tests.helpers.models import BLOCK


def neck_of(**options) -> LLMBlockNeck:
    torch.manual_seed(0)
    neck = LLMBlockNeck(8, BLOCK, init_cfg=None, guard=False, **options)
    return neck.eval()


class Counter:
    """A back-end of torch.compile that counts graphs."""

    graphs = 0

    def __call__(self, graph, example):
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize('out_type, training', [('cls_token', False), ('raw', True)])
def test_a_compiled_neck_is_one_graph_at_changing_batch_sizes(out_type, training):
    neck, same, counter = neck_of(out_type=out_type), neck_of(out_type=out_type), Counter()
    torch._dynamo.reset()
    compiled = torch.compile(neck, backend=counter, fullgraph=True)
    with torch.set_grad_enabled(training):
        for count in (2, 3, 5, 9):
            x = torch.randn(count, 7, 8, requires_grad=training)
            torch.testing.assert_close(compiled(x), same(x))
    assert counter.graphs == 2  # one of the first size, one of any


@pytest.mark.parametrize('low_rank', ['auto', 'fold'])
def test_a_trace_holds_for_other_batch_sizes(low_rank):
    neck = neck_of(out_type='cls_token', low_rank=low_rank, compile=True)
    x = torch.randn(2, 7, 8)
    with traceable(neck), torch.no_grad():
        neck(x)
        program = trace(Tuple(neck), [x], [{0: 'batch'}])
    assert neck.compile_options == {}
    neck.compile_options = None  # for the comparison, which needs no C++ compiler then
    for count in (1, 6):
        x = torch.randn(count, 7, 8)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(x)[0], neck(x), atol=1e-5, rtol=1e-5)


class Tuple(torch.nn.Module):
    def __init__(self, inner) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *tensors):
        return (self.inner(*tensors),)
