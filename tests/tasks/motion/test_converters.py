"""The released mmTransformer is computed here in plain tensors, from its own names."""

import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from lm4ve.errors import CheckpointError
from lm4ve.registry import MODELS
from lm4ve.tasks.motion.converters import convert_mmtransformer
from tests.helpers.released import attention, linear, norm, tensor

K, C, HIDDEN, STEPS, LANE = 3, 16, 24, 30, 8
#: What the names of most of the release's weights begin with.
TRANSFORMER = 'stacked_transformer.'


def released_state() -> dict[str, torch.Tensor]:
    state = {f'{TRANSFORMER}hist_tf.src_embed.1.pe': sines(50)}
    model, x = Released(state), torch.randn(2, K, C)
    model(torch.randn(2, 20, 2), torch.randn(2, 10, 5))
    # What the release never calls.
    model.decode('social_dec', x, x)
    model.linear(f'{TRANSFORMER}prediction_header.dis_emb', x[..., :2], C)
    return state


def sines(steps):
    """Return the table of positions ``[steps, C]``: sines and cosines take turns."""
    positions = torch.arange(steps)[:, None].float()
    rates = torch.exp(torch.arange(0, C, 2).float() * -(math.log(10000.0) / C))
    table = torch.zeros(steps, C)
    table[:, 0::2] = torch.sin(positions * rates)
    table[:, 1::2] = torch.cos(positions * rates)
    return table


class Released:
    """Recompute one scene without padding: agents ``[A, 20, 2]``, lanes ``[L, 10, 5]``."""

    def __init__(self, state):
        self.state = state
        self.linear = partial(linear, state)
        self.norm = partial(norm, state)

    def mlp(self, name, x, hidden=C, out=C):
        """Apply a linear layer, a norm, ReLU and a second linear layer."""
        x = F.relu(self.norm(f'{name}.1', self.linear(f'{name}.0', x, hidden)))
        return self.linear(f'{name}.3', x, out)

    def attention(self, name, *inputs):
        """Attend with two heads; the inputs are those of queries, keys and values."""
        projected = (
            self.linear(f'{name}.linears.{i}', x, C) for i, x in enumerate(inputs)
        )
        return self.linear(f'{name}.linears.3', attention(*projected, heads=2), C)

    def feed(self, name, x, hidden=HIDDEN):
        """Apply the feed-forward network of a layer."""
        inner = F.relu(self.linear(f'{name}.w_1', x, hidden))
        return self.linear(f'{name}.w_2', inner, x.shape[-1])

    def encode(self, name, x):
        """Apply the two layers of an encoder, with norms first, and its last norm."""
        for i in range(2):
            layer = f'{TRANSFORMER}{name}.layers.{i}'
            y = self.norm(f'{layer}.sublayer.0.norm', x)
            x = x + self.attention(f'{layer}.self_attn', y, y, y)
            y = self.norm(f'{layer}.sublayer.1.norm', x)
            x = x + self.feed(f'{layer}.feed_forward', y)
        return self.norm(f'{TRANSFORMER}{name}.norm', x)

    def decode(self, name, x, memory):
        """Apply the two layers of a decoder that attends to a memory, and its last norm."""
        for i in range(2):
            layer = f'{TRANSFORMER}{name}.layers.{i}'
            y = self.norm(f'{layer}.sublayer.0.norm', x)
            # As in the release: queries and keys are not normalized, values are.
            x = x + self.attention(f'{layer}.self_attn', x, x, y)
            y = self.norm(f'{layer}.sublayer.1.norm', x)
            x = x + self.attention(f'{layer}.src_attn', y, memory, memory)
            y = self.norm(f'{layer}.sublayer.2.norm', x)
            x = x + self.feed(f'{layer}.feed_forward', y)
        return self.norm(f'{TRANSFORMER}{name}.norm', x)

    def __call__(self, agents, lanes):
        count = len(agents)
        times = torch.arange(20) * 0.1
        middles = ((times[1:] + times[:-1]) / 2)[None, :, None].expand(count, -1, 1)
        history = torch.cat(
            [agents.diff(dim=1), middles, torch.ones(count, 19, 1)], dim=-1
        )
        x = self.linear(
            f'{TRANSFORMER}hist_tf.src_embed.0.lut', history, C
        ) * math.sqrt(C) + sines(19)
        queries = tensor(self.state, f'{TRANSFORMER}query_embed.weight', K, C).expand(
            count, -1, -1
        )
        x = self.decode('hist_tf.decoder', queries, self.encode('hist_tf.encoder', x))
        place = self.mlp(f'{TRANSFORMER}pos_emb', agents[:, -1], C // 2, C // 2)
        x = self.mlp(
            f'{TRANSFORMER}fusion1',
            torch.cat([place[:, None].expand(-1, K, -1), x], dim=-1),
        )
        y = torch.cat([lanes[:, :-1, :2], lanes[:, 1:, :2], lanes[:, 1:, 2:]], dim=-1)
        for i in range(2):
            at = f'subgraph.layer_seq.lmlp_{i}.mlp'
            y = F.relu(self.norm(f'{at}.1', self.linear(f'{at}.0', y, LANE // 2)))
            y = torch.cat([y, y.amax(1, keepdim=True).expand_as(y)], dim=-1)
        y = self.linear(f'{TRANSFORMER}lane_emb.lut', y.amax(1), C) * math.sqrt(C)
        memory = self.encode('lane_enc', y[None])
        x = self.decode('lane_dec', x, memory.expand(count, -1, -1))
        summary = self.mlp(f'{TRANSFORMER}dist_emb', x.flatten(1))
        social = self.mlp(f'{TRANSFORMER}fusion2', torch.cat([place, summary], dim=-1))
        social = self.encode('social_enc', social[None])[0]
        x = torch.cat([social[:, None].expand(-1, K, -1), x], dim=-1)
        head = f'{TRANSFORMER}prediction_header'
        steps = self.linear(
            f'{head}.reg_mlp.4', self.mlp(f'{head}.reg_mlp', x, 2 * C), 2 * STEPS
        )
        scores = self.feed(f'{head}.cls_FFN', x, 4 * C)
        scores = self.linear(f'{head}.classification_layer.0', scores, C)
        scores = self.linear(f'{head}.classification_layer.1', scores, 1)[..., 0]
        return steps.unflatten(-1, (STEPS, 2)).cumsum(-2), scores.softmax(-1)


def test_converted_weights_equal_the_release():
    state, sizes = released_state(), dict(channels=C, feedforward=HIDDEN)
    encoder = dict(type='lm4ve.MMTransformer', num_proposals=K, **sizes)
    decoder = dict(
        type='lm4ve.ProposalDecoder', future_steps=STEPS, learned_weights=False, **sizes
    )
    parts = dict(type='lm4ve.MotionForecaster', encoder=encoder, decoder=decoder)
    model = MODELS.build(parts).eval()
    model.load_state_dict(convert_mmtransformer(state))
    agents, lanes = torch.randn(4, 20, 2).cumsum(1), torch.randn(5, 10, 2) * 9
    turn = torch.tensor([0.0, -1.0, 1.0, 1.0, 0.0])
    intersection, control = torch.tensor([[0.0, 1, 0, 1, 1], [1.0, 0, 0, 1, 0]])
    inputs = dict(
        agents=agents[None],
        agents_valid=torch.ones(1, 4, 20, dtype=torch.bool),
        agent_padding=torch.zeros(1, 4, dtype=torch.bool),
        lanes=lanes[None],
        lane_attributes=torch.stack([turn, intersection, control], dim=-1)[None],
        lane_padding=torch.zeros(1, 5, dtype=torch.bool),
        queries=torch.arange(4)[None],
    )
    with torch.no_grad():
        lines, scores = model(inputs)

    def theirs(x):  # to the right, ahead
        return torch.stack([-x[..., 1], x[..., 0]], dim=-1)

    words = torch.stack(
        [1 + intersection, torch.tensor([1.0, 2, 3, 3, 1]), 1 + control], dim=-1
    )
    lane_input = torch.cat([theirs(lanes), words[:, None].expand(-1, 10, -1)], dim=-1)
    expected, probabilities = Released(state)(theirs(agents), lane_input)
    offsets = theirs(lines[0] - agents[:, -1, None, None])
    assert (offsets - expected).abs().max() < 2e-5 * expected.abs().max()
    assert torch.allclose(scores[0].softmax(-1), probabilities, atol=1e-5)
    assert probabilities.std() > 0.01


def test_unknown_weights_are_refused():
    with pytest.raises(CheckpointError, match='new_part'):
        convert_mmtransformer(dict(released_state(), new_part=torch.zeros(1)))
