"""SQA3D's ScanQA baseline as it was released, computed plainly by its own key names.

Written from the published description of its architecture (arXiv 2210.07474 and the module
definitions of github.com/SilongYong/SQA3D), with loops and functions of torch only: nothing
of lm4ve takes part. Dropout is off, batch norms use their running statistics.
"""

import itertools

import torch
import torch.nn.functional as F

from tests.tasks.rooms.tiny import VOTENET
from tests.tasks.vqa.tiny import named

HEADS, HIDDEN = 2, 16
STACK = '{enc_list_s,enc_list_q,dec_list,dec_list_2}.{0,1}'
ATTENTIONS = ('enc_list_{s,q}.{0,1}.mhatt', 'dec_list{,_2}.{0,1}.mhatt{1,2}')
#: Names of the release, alternatives in braces, with the shape of a weight that has a bias.
BIASED = {
    **dict.fromkeys((f'{name}.linear_{{v,k,q,merge}}' for name in ATTENTIONS), (16, 16)),
    **{f'{STACK}.ffn.mlp.fc.linear': (64, 16), f'{STACK}.ffn.mlp.linear': (16, 64)},
    **{'{lang,s,q}_feat_linear.0': (16, 16), 'object_feat_linear.0': (16, 7)},
    **{'answer_cls.0': (16, 36), 'answer_cls.3': (4, 16), 'aux_reg.0': (16, 24)},
    **{'aux_reg.3': (7, 16), 'object_cls.0': (16, 16), 'object_cls.3': (1, 16)},
    **{'voting_net.conv{1,2}': (10, 10, 1), 'voting_net.conv3': (13, 10, 1)},
    'proposal_net.proposal.6': (22, 7, 1),
    'attflat_{visual,s,q,lstm_q}.mlp.fc.linear': (9, 16),
    'attflat_{visual,s,q,lstm_q}.mlp.linear': (1, 9),
    'attflat_{visual,s,q,lstm_q}.linear_merge': (12, 16),
}
#: The widths of shared layers of convolution and batch norm.
SHARED = {
    'detection_backbone.sa1.mlp_module': (7, 6, 6, 8),
    'detection_backbone.sa2.mlp_module': (11, 8, 8, 10),
    'detection_backbone.sa{3,4}.mlp_module': (13, 8, 8, 10),
    'detection_backbone.fp{1,2}.mlp': (20, 10, 10),
    'proposal_net.vote_aggregation.mlp_module': (13, 7, 7, 7),
}


def random_state(poses: str = 'aux_reg') -> dict:
    """Return random weights by the released names, with what is never called.

    Args:
        poses (str): The name of the head of poses.
    """
    shapes = {f'lang_net.lstm.{k}_l0': (64,) for k in ('bias_ih', 'bias_hh')}
    shapes |= {'lang_net.lstm.weight_ih_l0': (64, 5), 'lang_net.lstm.weight_hh_l0': (64, 16)}
    shapes |= {f'{name}.weight': (7, 7, 1) for name in named('proposal_net.proposal.{0,3}')}
    norms = dict.fromkeys(named('voting_net.bn{1,2}'), 10)
    norms |= dict.fromkeys(named('proposal_net.proposal.{1,4}'), 7)
    for template, shape in BIASED.items():
        for name in named(template):
            shapes |= {f'{name}.weight': shape, f'{name}.bias': shape[:1]}
    for template, widths in SHARED.items():
        for name, (i, pair) in itertools.product(
            named(template), enumerate(itertools.pairwise(widths))
        ):
            shapes[f'{name}.layer{i}.conv.weight'] = (*pair[::-1], 1, 1)
            norms[f'{name}.layer{i}.bn.bn'] = pair[1]
    for template in ('enc_list_{s,q}.{0,1}.norm{1,2}', 'dec_list{,_2}.{0,1}.norm{1,2,3}'):
        shapes |= dict.fromkeys(named(template + '.{a,b}_2'), (16,))
    for name, width in norms.items():
        shapes |= dict.fromkeys(named(f'{name}.{{weight,bias,running_mean,running_var}}'), (width,))
    generator = torch.Generator().manual_seed(3)
    state = {
        k.replace('aux_reg', poses): torch.randn(v, generator=generator) * 0.4
        for k, v in shapes.items()
    }
    for name in norms:
        state[f'{name}.running_var'] = state[f'{name}.running_var'].abs() + 0.5
        state[f'{name}.weight'] += 1
        state[f'{name}.num_batches_tracked'] = torch.tensor(3)
    for name in state:
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
