"""Which path the block takes never freezes a batch size: in exports and under a compiler."""

import pytest
import torch

from lm4ve.necks import LLMBlockNeck
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
