"""SQA3D's ScanQA baseline as it was released, computed plainly by its own key names.

Written from the published description of its architecture (arXiv 2210.07474 and the
module definitions of github.com/SilongYong/SQA3D), with loops and functions of torch
only: nothing of lm4ve takes part. Dropout is off, batch norms use their running
statistics.
"""

import torch
import torch.nn.functional as F

from tests.helpers.released import attention, linear, random, tensor
from tests.helpers.rooms.tiny import VOTENET

HEADS = 2
HIDDEN = 16
#: The widths of the shared layers of each set abstraction.
WIDTHS = ((6, 6, 8), (8, 8, 10), (8, 8, 10), (8, 8, 10))


def random_state(poses: str = 'aux_reg') -> dict:
    """Return random weights by the released names, with what is never called.

    Args:
        poses (str): The name of the head of poses.
    """
    state = {}
    points = torch.rand(40, 7)
    words = torch.randn(3, 5)
    with torch.no_grad():
        scores(state, points, words, words)
        for name in ('s_feat_linear.0', 'q_feat_linear.0'):
            linear(state, name, torch.zeros(16), 16)
        _flatten(state, 'attflat_lstm_q', torch.zeros(2, 16))
        _head(state, 'object_cls', torch.zeros(16), 1)
    for name in state:
        if 'linear_merge.weight' in name or 'mlp.linear.weight' in name:
            state[name] *= 0.5
    # So that objects stay different from each other through four layers of a common
    # guide.
    state['object_feat_linear.0.weight'] *= 20
    return {name.replace('aux_reg', poses): value for name, value in state.items()}


def scores(state, points, situation, question):
    """One scene: points ``[N, 7]`` with normalized colors, vectors of words ``[L, 5]``.

    Returns:
        tuple: Logits of answers, the pose, and whether each proposal is an object.
    """
    tokens, masked = _objects(state, points)
    v = F.gelu(linear(state, 'object_feat_linear.0', tokens, 16))
    s = _text(state, 's', situation)
    q = _text(state, 'q', question)
    for i in range(2):
        v = _guided_layer(state, f'dec_list.{i}', v, masked, s)
    for i in range(2):
        v = _guided_layer(state, f'dec_list_2.{i}', v, masked, q)
    s = _flatten(state, 'attflat_s', s)
    q = _flatten(state, 'attflat_q', q)
    v = _flatten(state, 'attflat_visual', v, masked)
    answer = _head(state, 'answer_cls', torch.cat((s, q, v)), 4)
    pose = _head(state, 'aux_reg', torch.cat((s, v)), 7)
    return answer, pose, ~masked


def _text(state, name, words):
    lstm = torch.nn.LSTM(5, HIDDEN)
    for part, weight in lstm.named_parameters():
        weight.data = tensor(state, f'lang_net.lstm.{part}', *weight.shape)
    x, _ = lstm(words)
    x = F.gelu(linear(state, 'lang_feat_linear.0', x, 16))
    for i in range(2):
        x = _self_layer(state, f'enc_list_{name}.{i}', x)
    return x


def _head(state, name, x, out):
    x = F.gelu(linear(state, f'{name}.0', x, 16))
    return linear(state, f'{name}.3', x, out)


def _batch_norm(state, name, x):
    if f'{name}.weight' not in state:
        state[f'{name}.running_var'] = random(x.shape[-1]).abs() + 0.5
        state[f'{name}.num_batches_tracked'] = torch.tensor(3)
    weight = tensor(state, f'{name}.weight', x.shape[-1], offset=1.0)
    mean = tensor(state, f'{name}.running_mean', x.shape[-1])
    bias = tensor(state, f'{name}.bias', x.shape[-1])
    variance = state[f'{name}.running_var']
    return torch.relu(F.batch_norm(x, mean, variance, weight, bias))


def _shared(state, name, x, widths):
    for i, width in enumerate(widths):
        x = linear(state, f'{name}.layer{i}.conv', x, width, bias=False, ones=2)
        x = _batch_norm(state, f'{name}.layer{i}.bn.bn', x)
    return x


def _farthest(xyz, count):
    """Return the indices of points, each as far as possible from those before it."""
    picks = [0]
    while len(picks) < count:
        to_picks = torch.stack([(xyz - xyz[i]).square().sum(-1) for i in picks])
        picks.append(int(to_picks.amin(0).argmax()))
    return picks


def _ball(xyz, center, radius, samples):
    """Return the indices of points around another one; the first one fills up."""
    inside = []
    for i, point in enumerate(xyz):
        if (point - center).square().sum() < radius**2:
            inside.append(i)
    while len(inside) < samples:
        inside.append(inside[0])
    return inside[:samples]


def _abstract(state, name, xyz, features, count, radius, samples, widths):
    picks = _farthest(xyz, count)
    rows = []
    for i in picks:
        inside = _ball(xyz, xyz[i], radius, samples)
        places = (xyz[inside] - xyz[i]) / radius
        around = torch.cat((places, features[inside]), dim=-1)
        rows.append(_shared(state, name, around, widths).amax(0))
    return xyz[picks], torch.stack(rows)


def _propagate(state, name, targets, sources):
    places, own_features = targets
    source_places, source_features = sources
    rows = []
    for place, own in zip(places, own_features, strict=True):
        distance = (source_places - place).square().sum(-1).sqrt()
        nearest = distance.argsort()[:3]
        weights = 1 / (distance[nearest] + 1e-8)
        weighted = weights[:, None] * source_features[nearest]
        mean = weighted.sum(0) / weights.sum()
        rows.append(torch.cat((mean, own)))
    return places, _shared(state, name, torch.stack(rows), (10, 10))


def _objects(state, points):
    """Return the tokens of the proposals, and which of them are no objects."""
    seeds, features = _seeds(state, points)
    votes, features = _votes(state, seeds, features)
    name = 'proposal_net.vote_aggregation.mlp_module'
    count = VOTENET['num_proposals']
    radius = VOTENET['proposal_radius']
    samples = VOTENET['proposal_samples']
    _, tokens = _abstract(
        state, name, votes, features, count, radius, samples, (7, 7, 7)
    )
    net = tokens
    for i in (0, 3):
        net = linear(state, f'proposal_net.proposal.{i}', net, 7, bias=False, ones=1)
        net = _batch_norm(state, f'proposal_net.proposal.{i + 1}', net)
    net = linear(state, 'proposal_net.proposal.6', net, 22, ones=1)
    return tokens, net[:, :2].argmax(-1) == 0


def _seeds(state, points):
    xyz, features = points[:, :3], points[:, 3:]
    levels = []
    for i in range(4):
        xyz, features = _abstract(
            state,
            f'detection_backbone.sa{i + 1}.mlp_module',
            xyz,
            features,
            VOTENET['num_points'][i],
            VOTENET['radii'][i],
            VOTENET['samples'][i],
            WIDTHS[i],
        )
        levels.append((xyz, features))
    level = _propagate(state, 'detection_backbone.fp1.mlp', levels[2], levels[3])
    return _propagate(state, 'detection_backbone.fp2.mlp', levels[1], level)


def _votes(state, seeds, features):
    net = features
    for i in (1, 2):
        net = linear(state, f'voting_net.conv{i}', net, 10, ones=1)
        net = _batch_norm(state, f'voting_net.bn{i}', net)
    net = linear(state, 'voting_net.conv3', net, 13, ones=1)
    votes = seeds + net[:, :3]
    return votes, F.normalize(features + net[:, 3:], dim=1)


def _norm(state, name, x):
    std = x.std(-1, keepdim=True)
    scaled = (x - x.mean(-1, keepdim=True)) / (std + 1e-6)
    gain = tensor(state, f'{name}.a_2', x.shape[-1], offset=1.0)
    return gain * scaled + tensor(state, f'{name}.b_2', x.shape[-1])


def _attention(state, name, x, others, masked=None):
    q = linear(state, f'{name}.linear_q', x, HIDDEN)
    k = linear(state, f'{name}.linear_k', others, HIDDEN)
    v = linear(state, f'{name}.linear_v', others, HIDDEN)
    mixed = attention(q[None], k[None], v[None], HEADS, masked)[0]
    return linear(state, f'{name}.linear_merge', mixed, HIDDEN)


def _self_layer(state, name, x):
    """A layer in which words attend to each other."""
    x = _norm(state, f'{name}.norm1', x + _attention(state, f'{name}.mhatt', x, x))
    return _norm(state, f'{name}.norm2', x + _feed_forward(state, name, x))


def _guided_layer(state, name, x, masked, guide):
    """A layer in which objects attend to each other, then to words."""
    mixed = _attention(state, f'{name}.mhatt1', x, x, masked)
    x = _norm(state, f'{name}.norm1', x + mixed)
    mixed = _attention(state, f'{name}.mhatt2', x, guide)
    x = _norm(state, f'{name}.norm2', x + mixed)
    return _norm(state, f'{name}.norm3', x + _feed_forward(state, name, x))


def _feed_forward(state, name, x):
    inner = F.gelu(linear(state, f'{name}.ffn.mlp.fc.linear', x, 64))
    return linear(state, f'{name}.ffn.mlp.linear', inner, HIDDEN)


def _flatten(state, name, x, masked=None):
    weights = F.gelu(linear(state, f'{name}.mlp.fc.linear', x, 9))
    weights = linear(state, f'{name}.mlp.linear', weights, 1)[:, 0]
    if masked is not None:
        weights = weights.masked_fill(masked, -1e9)
    return linear(state, f'{name}.linear_merge', weights.softmax(0) @ x, 12)
