"""Features that fit two layouts are never read in another one than the encoder's."""

import copy
import random

import pytest
import torch
from torch import nn

from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockInsert, LLMBlockNeck
from lm4ve.necks.layouts import COMMON
from lm4ve.tasks.base.token_neck import build_token_neck
from tests.helpers.necks.host import NECK

CHANNELS = 4
#: A block of MLPs, which reads tokens in any order.
MLP = dict(type='MLPBlock', embed_dims=8)


def neck_of(layout: str | None = None) -> LLMBlockNeck:
    torch.manual_seed(0)
    return LLMBlockNeck(CHANNELS, MLP, layout=layout).double().eval()


def features_in(layout: str, draw: random.Random) -> torch.Tensor:
    """Draw features of small sizes, which often equal one another."""
    sizes = [CHANNELS if letter == 'C' else draw.randint(1, 5) for letter in layout]
    return torch.randn(sizes, dtype=torch.float64)


@pytest.mark.parametrize('layout', COMMON)
def test_no_layout_is_guessed(layout):
    draw = random.Random(layout)
    torch.manual_seed(1)
    named = neck_of(layout)
    answers = set()
    for _ in range(40):
        neck = neck_of()
        for _ in range(4):  # an encoder's layout stays, its sizes vary
            x = features_in(layout, draw)
            try:
                out = neck(x)
            except UserError:
                answers.add('refused')
                continue
            answers.add('read')
            torch.testing.assert_close(out, named(x))
    assert 'refused' in answers
    assert ('read' in answers) == (layout in ('BNC', 'BCHW', 'BCTHW'))


AMBIGUOUS = [
    ((2, 4, 4), "layout='BNC' or layout='BCN'"),
    ((2, 4, 3, 4), "layout='BCHW' or layout='BHWC'"),
    ((2, 4, 4, 3, 3), "layout='BCTHW' or layout='BTCHW'"),
    ((2, 4, 3, 3, 4), "layout='BCTHW' or layout='BTHWC'"),
]


@pytest.mark.parametrize('shape, message', AMBIGUOUS)
def test_the_first_features_ask_for_a_layout_and_later_ones_do_not(shape, message):
    x = torch.randn(shape, dtype=torch.float64)
    neck = neck_of()
    with pytest.raises(UserError, match=message):
        neck(x)
    unambiguous = torch.randn(2, 4, *[3] * (len(shape) - 2), dtype=torch.float64)
    if len(shape) == 3:
        unambiguous = unambiguous.mT
    neck(unambiguous)
    layout = {3: 'BNC', 4: 'BCHW', 5: 'BCTHW'}[len(shape)]
    expected = neck_of(layout)(x)
    torch.testing.assert_close(neck(x), expected)
    torch.testing.assert_close(copy.deepcopy(neck)(x), expected)
    # Other numbers of dimensions were not seen yet.
    for other, text in AMBIGUOUS:
        if len(other) != len(shape):
            with pytest.raises(UserError, match=text):
                neck(torch.randn(other, dtype=torch.float64))


def test_a_contradiction_is_an_error_at_any_time():
    neck = neck_of()
    neck(torch.randn(2, 4, 3, 3, dtype=torch.float64))
    with pytest.raises(UserError, match="layout='BHWC'"):
        neck(torch.randn(2, 3, 3, 4, dtype=torch.float64))


def test_models_of_ours_make_tokens_whatever_their_number():
    neck = build_token_neck(dict(type='LLMBlockNeck', in_channels=CHANNELS, block=MLP))
    neck.eval()(torch.randn(2, CHANNELS, CHANNELS))
    assert build_token_neck(None) is None


# ------------------------------------------------------------------ within an encoder
class Encoder(nn.Module):
    """Has a layer that sees samples first, or tokens first as in CLIP's transformer."""

    def __init__(self, tokens_first: bool) -> None:
        super().__init__()
        self.tokens_first = tokens_first
        self.layer = nn.Linear(16, 16)

    def forward(self, x):
        if self.tokens_first:
            return self.layer(x.transpose(0, 1)).transpose(0, 1)
        return self.layer(x)


def placed(tokens_first: bool, layout: str | None = None) -> nn.Module:
    torch.manual_seed(0)
    neck = dict(NECK, layout=layout)
    return LLMBlockInsert(Encoder(tokens_first), 'layer', neck).eval()


@pytest.mark.parametrize('tokens_first', [False, True])
def test_as_many_samples_as_tokens_are_never_mistaken_for_each_other(tokens_first):
    draw = random.Random(tokens_first)
    torch.manual_seed(1)
    named = placed(tokens_first, 'NBC' if tokens_first else 'BNC')
    answers = set()
    for _ in range(10):
        model = placed(tokens_first)
        for _ in range(4):
            x = torch.randn(draw.randint(1, 4), draw.randint(1, 4), 16)
            try:
                out = model(x)
            except UserError:
                answers.add('refused')
                continue
            answers.add('read')
            torch.testing.assert_close(out, named(x))
    # Of one sample with one token both layouts are the same.
    assert answers == {'refused', 'read'}


def test_a_last_batch_with_as_many_samples_as_tokens_goes_on():
    model = placed(tokens_first=False)
    square = torch.randn(5, 5, 16)
    message = r"gives \[5, 5, 16\] of 5 samples.*layout='BNC' or layout='NBC'"
    with pytest.raises(UserError, match=message):
        model(square)
    model(torch.randn(8, 5, 16))
    expected = placed(False, 'BNC')(square)
    torch.testing.assert_close(model(square), expected)
    torch.testing.assert_close(copy.deepcopy(model)(square), expected)


def test_a_named_layout_asks_for_nothing():
    square = torch.randn(5, 5, 16)
    for tokens_first, layout in ((False, 'BNC'), (True, 'NBC')):
        placed(tokens_first, layout)(square)


def test_a_compiled_neck_is_compiled_once():
    torch._dynamo.reset()
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    for model, x in (
        (neck_of(), torch.randn(2, 3, CHANNELS, dtype=torch.float64)),
        (placed(tokens_first=False), torch.randn(2, 3, 16)),
    ):
        graphs.clear()
        compiled = torch.compile(model, backend=backend)
        compiled(x)
        count = len(graphs)
        compiled(x)
        compiled(x)
        assert count > 0
        assert len(graphs) == count
