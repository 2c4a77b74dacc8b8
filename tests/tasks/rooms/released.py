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
    weight = state[f'{name}.weight']
    out = x @ weight.reshape(len(weight), -1).T
    return out + state[f'{name}.bias'] if f'{name}.bias' in state else out


def _head(state, name, x):
    return _linear(state, f'{name}.3', F.gelu(_linear(state, f'{name}.0', x)))


def _batch_norm(state, name, x):
    scaled = (x - state[f'{name}.running_mean']) / (state[f'{name}.running_var'] + 1e-5).sqrt()
    return scaled * state[f'{name}.weight'] + state[f'{name}.bias']


def _shared(state, name, x):
    i = 0
    while f'{name}.layer{i}.conv.weight' in state:
        x = _linear(state, f'{name}.layer{i}.conv', x)
        x = torch.relu(_batch_norm(state, f'{name}.layer{i}.bn.bn', x))
        i += 1
    return x


def _farthest(xyz, num):
    picks = [0]
    while len(picks) < num:
        nearest = torch.stack([(xyz - xyz[i]).square().sum(-1) for i in picks]).amin(0)
        picks.append(int(nearest.argmax()))
    return picks


def _abstract(state, name, xyz, features, num, radius, samples):
    picks = _farthest(xyz, num)
    rows = []
    for i in picks:
        inside = [j for j in range(len(xyz)) if (xyz[j] - xyz[i]).square().sum() < radius**2]
        inside = (inside + inside[:1] * samples)[:samples]
        around = torch.cat(((xyz[inside] - xyz[i]) / radius, features[inside]), dim=-1)
        rows.append(_shared(state, name, around).amax(0))
    return xyz[picks], torch.stack(rows), picks


def _propagate(state, name, targets, sources, target_features, source_features):
    rows = []
    for place, own in zip(targets, target_features, strict=True):
        distance = (sources - place).square().sum(-1).sqrt()
        nearest = distance.argsort()[:3]
        weights = 1 / (distance[nearest] + 1e-8)
        mean = (weights[:, None] * source_features[nearest]).sum(0) / weights.sum()
        rows.append(torch.cat((mean, own)))
    return _shared(state, name, torch.stack(rows))


def _objects(state, points):
    xyz, features = points[:, :3], points[:, 3:]
    levels = []
    sizes = zip(VOTENET['num_points'], VOTENET['radii'], VOTENET['samples'], strict=True)
    for i, size in enumerate(sizes):
        name = f'detection_backbone.sa{i + 1}.mlp_module'
        xyz, features, _ = _abstract(state, name, xyz, features, *size)
        levels.append((xyz, features))
    for name, (target, mine), source in (('fp1', levels[2], levels[3]), ('fp2', levels[1], None)):
        source_xyz = levels[2][0] if source is None else source[0]
        name = f'detection_backbone.{name}.mlp'
        features = _propagate(state, name, target, source_xyz, mine, features)
    seeds = levels[1][0]
    net = features
    for i in (1, 2):
        net = torch.relu(
            _batch_norm(state, f'voting_net.bn{i}', _linear(state, f'voting_net.conv{i}', net))
        )
    net = _linear(state, 'voting_net.conv3', net)
    votes, features = seeds + net[:, :3], features + net[:, 3:]
    features = features / features.norm(dim=1, keepdim=True)
    sizes = (VOTENET[f'proposal_{n}'] for n in ('radius', 'samples'))
    name = 'proposal_net.vote_aggregation.mlp_module'
    _, tokens, _ = _abstract(state, name, votes, features, VOTENET['num_proposals'], *sizes)
    net, name = tokens, 'proposal_net.proposal'
    for i in (0, 3):
        net = _linear(state, f'{name}.{i}', net)
        net = torch.relu(_batch_norm(state, f'{name}.{i + 1}', net))
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
