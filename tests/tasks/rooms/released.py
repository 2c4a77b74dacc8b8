"""SQA3D's ScanQA baseline as it was released, computed plainly by its own key names.

Written from the published description of its architecture (arXiv 2210.07474 and the module
definitions of github.com/SilongYong/SQA3D), with loops and functions of torch only: nothing
of lm4ve takes part. Dropout is off, batch norms use their running statistics.
"""

import torch
import torch.nn.functional as F

from lm4ve.tasks.rooms.converters import to_sqa3d
from tests.tasks.rooms.tiny import VOTENET, build

HEADS, HIDDEN = 2, 16


def random_state(head: str = 'answer_cls') -> dict:
    """Return random weights by the released names; :func:`scores` looks up all that is called."""
    generator = torch.Generator().manual_seed(7)
    state = {
        k.replace('answer_cls', head): torch.randn(v.shape, generator=generator) * 0.4
        for k, v in to_sqa3d(build().state_dict()).items()
    }
    for name in state:
        if name.endswith('running_var'):
            state[name] = state[name].abs() + 0.5
            state[name.replace('running_var', 'weight')] += 1
        if name.endswith('num_batches_tracked'):
            state[name] = torch.tensor(3)
        if name.endswith('a_2'):
            state[name] += 1
        if 'linear_merge.weight' in name or 'mlp.linear.weight' in name:
            state[name] *= 0.5
    # So that objects stay different from each other through four layers of a common guide.
    state['object_feat_linear.0.weight'] *= 20
    return state


def scores(state, points, situation, question):
    """One scene: points ``[N, 7]`` with normalized colors, vectors of words ``[L, 5]``.

    Returns:
        tuple: Logits of answers, the pose, and whether each proposal is an object.
    """
    tokens, masked = _objects(state, points)
    v, texts = F.gelu(_linear(state, 'object_feat_linear.0', tokens)), []
    lstm = torch.nn.LSTM(state['lang_net.lstm.weight_ih_l0'].shape[1], HIDDEN)
    lstm.load_state_dict({k[14:]: x for k, x in state.items() if k.startswith('lang_net.lstm.')})
    for words, name in ((situation, 's'), (question, 'q')):
        x = F.gelu(_linear(state, 'lang_feat_linear.0', lstm(words)[0]))
        for i in range(2):
            x = _layer(state, f'enc_list_{name}.{i}', ['mhatt'], x)
        texts.append(x)
    for text, stack in zip(texts, ('dec_list', 'dec_list_2'), strict=True):
        for i in range(2):
            v = _layer(state, f'{stack}.{i}', ['mhatt1', 'mhatt2'], v, masked, text)
    s, q = (_flatten(state, f'attflat_{n}', x) for n, x in zip('sq', texts, strict=True))
    v = _flatten(state, 'attflat_visual', v, masked)
    answer = _head(state, 'answer_cls', torch.cat((s, q, v)))
    return answer, _head(state, 'aux_reg', torch.cat((s, v))), ~masked


def _linear(state, name, x):
    return F.linear(x, state[f'{name}.weight'].flatten(1), state.get(f'{name}.bias'))


def _head(state, name, x):
    return _linear(state, f'{name}.3', F.gelu(_linear(state, f'{name}.0', x)))


def _batch_norm(state, name, x):
    parts = ('running_mean', 'running_var', 'weight', 'bias')
    return torch.relu(F.batch_norm(x, *(state[f'{name}.{part}'] for part in parts)))


def _shared(state, name, x):
    i = 0
    while f'{name}.layer{i}.conv.weight' in state:
        x = _linear(state, f'{name}.layer{i}.conv', x)
        x = _batch_norm(state, f'{name}.layer{i}.bn.bn', x)
        i += 1
    return x


def _abstract(state, name, xyz, features, num, radius, samples):
    picks, rows = [0], []
    while len(picks) < num:
        nearest = torch.stack([(xyz - xyz[i]).square().sum(-1) for i in picks]).amin(0)
        picks.append(int(nearest.argmax()))
    for i in picks:
        inside = [j for j in range(len(xyz)) if (xyz[j] - xyz[i]).square().sum() < radius**2]
        inside = (inside + inside[:1] * samples)[:samples]
        around = torch.cat(((xyz[inside] - xyz[i]) / radius, features[inside]), dim=-1)
        rows.append(_shared(state, name, around).amax(0))
    return xyz[picks], torch.stack(rows)


def _propagate(state, name, targets, sources):
    rows = []
    for place, own in zip(*targets, strict=True):
        distance = (sources[0] - place).square().sum(-1).sqrt()
        nearest = distance.argsort()[:3]
        weights = 1 / (distance[nearest] + 1e-8)
        mean = (weights[:, None] * sources[1][nearest]).sum(0) / weights.sum()
        rows.append(torch.cat((mean, own)))
    return targets[0], _shared(state, name, torch.stack(rows))


def _objects(state, points):
    level, levels = (points[:, :3], points[:, 3:]), []
    sizes = zip(VOTENET['num_points'], VOTENET['radii'], VOTENET['samples'], strict=True)
    for i, size in enumerate(sizes, 1):
        level = _abstract(state, f'detection_backbone.sa{i}.mlp_module', *level, *size)
        levels.append(level)
    level = _propagate(state, 'detection_backbone.fp1.mlp', levels[2], levels[3])
    seeds, features = _propagate(state, 'detection_backbone.fp2.mlp', levels[1], level)
    net = features
    for i in (1, 2):
        net = _batch_norm(state, f'voting_net.bn{i}', _linear(state, f'voting_net.conv{i}', net))
    net = _linear(state, 'voting_net.conv3', net)
    votes, features = seeds + net[:, :3], F.normalize(features + net[:, 3:], dim=1)
    sizes = (VOTENET[n] for n in ('num_proposals', 'proposal_radius', 'proposal_samples'))
    name = 'proposal_net.vote_aggregation.mlp_module'
    _, tokens = _abstract(state, name, votes, features, *sizes)
    net, name = tokens, 'proposal_net.proposal'
    for i in (0, 3):
        net = _batch_norm(state, f'{name}.{i + 1}', _linear(state, f'{name}.{i}', net))
    return tokens, _linear(state, f'{name}.6', net)[:, :2].argmax(-1) == 0


def _norm(state, name, x):
    std = x.std(-1, keepdim=True)
    scaled = (x - x.mean(-1, keepdim=True)) / (std + 1e-6)
    return state[f'{name}.a_2'] * scaled + state[f'{name}.b_2']


def _attention(state, name, x, others, masked=None):
    heads = []
    q, k, v = (
        _linear(state, f'{name}.linear_{part}', y)
        for part, y in (('q', x), ('k', others), ('v', others))
    )
    width = HIDDEN // HEADS
    for h in range(HEADS):
        cut = slice(h * width, (h + 1) * width)
        weights = q[:, cut] @ k[:, cut].T / width**0.5
        if masked is not None:
            weights = weights.masked_fill(masked, -1e9)
        heads.append(weights.softmax(-1) @ v[:, cut])
    return _linear(state, f'{name}.linear_merge', torch.cat(heads, dim=-1))


def _layer(state, name, attentions, x, masked=None, guide=None):
    for n, attention in enumerate(attentions, 1):
        others, hidden = (x, masked) if n == 1 else (guide, None)
        found = _attention(state, f'{name}.{attention}', x, others, hidden)
        x = _norm(state, f'{name}.norm{n}', x + found)
    inner = F.gelu(_linear(state, f'{name}.ffn.mlp.fc.linear', x))
    inner = _linear(state, f'{name}.ffn.mlp.linear', inner)
    return _norm(state, f'{name}.norm{len(attentions) + 1}', x + inner)


def _flatten(state, name, x, masked=None):
    weights = F.gelu(_linear(state, f'{name}.mlp.fc.linear', x))
    weights = _linear(state, f'{name}.mlp.linear', weights)[:, 0]
    if masked is not None:
        weights = weights.masked_fill(masked, -1e9)
    return _linear(state, f'{name}.linear_merge', weights.softmax(0) @ x)
