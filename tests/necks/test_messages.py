"""What ``wrap`` says of a place that it cannot take, in one line with the fix."""

import pytest
import torch
from torch import nn

import lm4ve
from lm4ve.errors import UserError, closest


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attn = nn.Linear(8, 8)
        self.mlp = nn.Sequential(
            nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.Dropout()
        )

    def forward(self, x):
        return x + self.mlp(self.attn(self.norm(x)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(12))
        self.act = nn.GELU()

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.act(x)


PLACES = [
    (
        'layers.3.mlp',
        r"'layers.3.mlp' \(Dropout\) does not .* Fix: in_channels=8, .* Linear",
    ),
    ('act', r"'act' \(GELU\) does not show .* Fix: give in_channels="),
    (
        'layers.99.mlp',
        r'no submodule of Encoder.*Fix: name one of layers.{0..11}.mlp, ',
    ),
    (
        'layers.1.attention',
        r'no submodule of Encoder.*Fix: name one of layers.{0..11}.attn, ',
    ),
    ('layers', r'only a container.*Fix: name one of layers.{0..11}\.'),
]


@pytest.mark.parametrize('after, words', PLACES)
def test_place_that_cannot_be_taken_is_named_with_the_fix(after, words):
    with pytest.raises(UserError, match=words) as error:
        lm4ve.wrap(Encoder(), after=after, block=dict(type='MLPBlock', embed_dims=8))
    text = str(error.value)
    assert '\n' not in text and len(text) < 400


@pytest.mark.parametrize('before, width', [('layers.3.mlp', 8), ('layers.3.mlp.2', 16)])
def test_width_before_a_place_is_what_its_first_layer_reads(before, width):
    block = dict(type='MLPBlock', embed_dims=8)
    model = lm4ve.wrap(Encoder(), before=before, block=block)
    assert model.llm_neck.in_channels == width
    model(torch.randn(2, 3, 4))


def test_a_vector_for_each_sample_asks_for_a_place_with_tokens():
    model = lm4ve.wrap(Encoder(), 'act', dict(type='MLPBlock', embed_dims=8), 8)
    with pytest.raises(
        UserError, match=r'gives \[2, 8\]. Fix: a place before its pool'
    ):
        model(torch.randn(2, 4))


def test_closest_names_come_first_and_numbered_ones_as_a_group():
    """A group counts as one of those shown; "more" counts each name on its own."""
    numbered = ['a.0.b', 'a.0.c', 'a.1.b', 'a.1.c', 'a.2.b', 'a.2.c']
    names = [*numbered, 'head', 'stem', 'a.7.d']
    # Two groups with all six numbered names; three names are left.
    assert closest('a.9.c', names, 2) == 'a.{0..2}.c, a.{0..2}.b and 3 more'
    # One of nine names.
    assert closest('hed', names, 1) == 'head and 8 more'
    assert closest('x', ['y']) == 'y'
