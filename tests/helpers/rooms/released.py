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

HEADS, HIDDEN = 2, 16
#: The widths of shared layers, by the number of what is abstracted.
WIDTHS = ((6, 6, 8), *[(8, 8, 10)] * 3)


def random_state(poses: str = 'aux_reg') -> dict:
    """Return random weights by the released names, with what is never called.

    Args:
        poses (str): The name of the head of poses.
    """
    state, points, words = {}, torch.rand(40, 7), torch.randn(3, 5)
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
    return {k.replace('aux_reg', poses): v for k, v in state.items()}


def scores(state, points, situation, question):
    """One scene: points ``[N, 7]`` with normalized colors, vectors of words ``[L, 5]``.

    Returns:
        tuple: Logits of answers, the pose, and whether each proposal is an object.
    """
    tokens, masked = _objects(state, points)
    v, texts = F.gelu(linear(state, 'object_feat_linear.0', tokens, 16)), []
    lstm = torch.nn.LSTM(5, HIDDEN)
    for name, weight in lstm.named_parameters():
        weight.data = tensor(state, f'lang_net.lstm.{name}', *weight.shape)
    for words, name in ((situation, 's'), (question, 'q')):
        x = F.gelu(linear(state, 'lang_feat_linear.0', lstm(words)[0], 16))
        for i in range(2):
            x = _layer(state, f'enc_list_{name}.{i}', ['mhatt'], x)
        texts.append(x)
    for text, stack in zip(texts, ('dec_list', 'dec_list_2'), strict=True):
        for i in range(2):
            v = _layer(state, f'{stack}.{i}', ['mhatt1', 'mhatt2'], v, masked, text)
    s, q = (
        _flatten(state, f'attflat_{n}', x) for n, x in zip('sq', texts, strict=True)
    )
    v = _flatten(state, 'attflat_visual', v, masked)
    answer = _head(state, 'answer_cls', torch.cat((s, q, v)), 4)
    return answer, _head(state, 'aux_reg', torch.cat((s, v)), 7), ~masked


def _head(state, name, x, out):
    return linear(state, f'{name}.3', F.gelu(linear(state, f'{name}.0', x, 16)), out)


def _batch_norm(state, name, x):
    if f'{name}.weight' not in state:
        state[f'{name}.running_var'] = random(x.shape[-1]).abs() + 0.5
        state[f'{name}.num_batches_tracked'] = torch.tensor(3)
    tensor(state, f'{name}.weight', x.shape[-1], offset=1.0)
    parts = ('running_mean', 'running_var', 'weight', 'bias')
    values = (tensor(state, f'{name}.{part}', x.shape[-1]) for part in parts)
    return torch.relu(F.batch_norm(x, *values))


def _shared(state, name, x, widths):
    for i, width in enumerate(widths):
        x = linear(state, f'{name}.layer{i}.conv', x, width, bias=False, ones=2)
        x = _batch_norm(state, f'{name}.layer{i}.bn.bn', x)
    return x


def _abstract(state, name, xyz, features, num, radius, samples, widths):
    picks, rows = [0], []
    while len(picks) < num:
        nearest = torch.stack([(xyz - xyz[i]).square().sum(-1) for i in picks]).amin(0)
        picks.append(int(nearest.argmax()))
    for i in picks:
        inside = [
            j for j in range(len(xyz)) if (xyz[j] - xyz[i]).square().sum() < radius**2
        ]
        inside = (inside + inside[:1] * samples)[:samples]
        around = torch.cat(((xyz[inside] - xyz[i]) / radius, features[inside]), dim=-1)
        rows.append(_shared(state, name, around, widths).amax(0))
    return xyz[picks], torch.stack(rows)


def _propagate(state, name, targets, sources):
    rows = []
    for place, own in zip(*targets, strict=True):
        distance = (sources[0] - place).square().sum(-1).sqrt()
        nearest = distance.argsort()[:3]
        weights = 1 / (distance[nearest] + 1e-8)
        mean = (weights[:, None] * sources[1][nearest]).sum(0) / weights.sum()
        rows.append(torch.cat((mean, own)))
    return targets[0], _shared(state, name, torch.stack(rows), (10, 10))


def _objects(state, points):
    level, levels = (points[:, :3], points[:, 3:]), []
    sizes = (VOTENET[n] for n in ('num_points', 'radii', 'samples'))
    for i, size in enumerate(zip(*sizes, WIDTHS, strict=True), 1):
        level = _abstract(state, f'detection_backbone.sa{i}.mlp_module', *level, *size)
        levels.append(level)
    level = _propagate(state, 'detection_backbone.fp1.mlp', levels[2], levels[3])
    seeds, features = _propagate(state, 'detection_backbone.fp2.mlp', levels[1], level)
    net = features
    for i in (1, 2):
        net = linear(state, f'voting_net.conv{i}', net, 10, ones=1)
        net = _batch_norm(state, f'voting_net.bn{i}', net)
    net = linear(state, 'voting_net.conv3', net, 13, ones=1)
    votes, features = seeds + net[:, :3], F.normalize(features + net[:, 3:], dim=1)
    sizes = (
        VOTENET[n] for n in ('num_proposals', 'proposal_radius', 'proposal_samples')
    )
    name = 'proposal_net.vote_aggregation.mlp_module'
    _, tokens = _abstract(state, name, votes, features, *sizes, (7, 7, 7))
    net, name = tokens, 'proposal_net.proposal'
    for i in (0, 3):
        net = linear(state, f'{name}.{i}', net, 7, bias=False, ones=1)
        net = _batch_norm(state, f'{name}.{i + 1}', net)
    return tokens, linear(state, f'{name}.6', net, 22, ones=1)[:, :2].argmax(-1) == 0


def _norm(state, name, x):
    std = x.std(-1, keepdim=True)
    scaled = (x - x.mean(-1, keepdim=True)) / (std + 1e-6)
    gain = tensor(state, f'{name}.a_2', x.shape[-1], offset=1.0)
    return gain * scaled + tensor(state, f'{name}.b_2', x.shape[-1])


def _attention(state, name, x, others, masked=None):
    inputs = dict(q=x, k=others, v=others).items()
    projected = (
        linear(state, f'{name}.linear_{part}', y, HIDDEN)[None] for part, y in inputs
    )
    found = attention(*projected, HEADS, masked)[0]
    return linear(state, f'{name}.linear_merge', found, HIDDEN)


def _layer(state, name, attentions, x, masked=None, guide=None):
    for n, kind in enumerate(attentions, 1):
        others, hidden = (x, masked) if n == 1 else (guide, None)
        found = _attention(state, f'{name}.{kind}', x, others, hidden)
        x = _norm(state, f'{name}.norm{n}', x + found)
    inner = F.gelu(linear(state, f'{name}.ffn.mlp.fc.linear', x, 64))
    inner = linear(state, f'{name}.ffn.mlp.linear', inner, HIDDEN)
    return _norm(state, f'{name}.norm{len(attentions) + 1}', x + inner)


def _flatten(state, name, x, masked=None):
    weights = F.gelu(linear(state, f'{name}.mlp.fc.linear', x, 9))
    weights = linear(state, f'{name}.mlp.linear', weights, 1)[:, 0]
    if masked is not None:
        weights = weights.masked_fill(masked, -1e9)
    return linear(state, f'{name}.linear_merge', weights.softmax(0) @ x, 12)
