"""METER as it was released, computed plainly on a state with its own key names.

Written from the published description of its architecture (arXiv 2111.02387 and the module
definitions of github.com/zdou0830/METER), with functions of torch only: nothing of lm4ve
and no layer of transformers takes part. Dropout is off.
"""

import torch
import torch.nn.functional as F

#: Head counts, and what no tensor tells.
HEADS = dict(clip=2, text=2, fusion=2)
PAD = 1


def random_state(head: str) -> dict:
    """Return random weights by METER's names: 24, 20 and 16 wide, two layers of each kind.

    Args:
        head (str): 'pretrain', 'vqa' or 'retrieval'.
    """
    v, t, c = 24, 20, 16
    shapes = {
        'vit_model.positional_embedding': (7, 9),
        'vit_model.visual.class_embedding': (v,),
        'vit_model.visual.positional_embedding': (17, v),
        'vit_model.visual.conv1.weight': (v, 3, 8, 8),
        'text_transformer.embeddings.word_embeddings.weight': (20, t),
        'text_transformer.embeddings.position_embeddings.weight': (40, t),
        'text_transformer.embeddings.token_type_embeddings.weight': (2, t),
        'token_type_embeddings.weight': (2, c),
        **_norms(9, 'vit_model.ln_final'),
        **_norms(v, 'vit_model.visual.ln_pre', 'vit_model.visual.ln_post'),
        **_norms(t, 'text_transformer.embeddings.LayerNorm'),
        **_linears(t, t, 'text_transformer.pooler.dense'),
        **_linears(c, t, 'cross_modal_text_transform'),
        **_linears(c, v, 'cross_modal_image_transform'),
        **_linears(c, c, 'cross_modal_text_pooler.dense', 'cross_modal_image_pooler.dense'),
    }
    for i in range(2):
        block = f'vit_model.visual.transformer.resblocks.{i}'
        shapes |= {f'{block}.attn.in_proj_weight': (3 * v, v)}
        shapes |= {f'{block}.attn.in_proj_bias': (3 * v,)}
        shapes |= _linears(v, v, f'{block}.attn.out_proj') | _linears(32, v, f'{block}.mlp.c_fc')
        shapes |= _linears(v, 32, f'{block}.mlp.c_proj')
        shapes |= _norms(v, f'{block}.ln_1', f'{block}.ln_2')
        shapes |= _bert(f'text_transformer.encoder.layer.{i}', t, 28, 'attention')
        for stream in ('text', 'image'):
            name = f'cross_modal_{stream}_layers.{i}'
            shapes |= _bert(name, c, 4 * c, 'attention', 'crossattention')
    if head == 'vqa':
        shapes |= _linears(2 * c, 2 * c, 'vqa_classifier.0') | _norms(2 * c, 'vqa_classifier.1')
        shapes |= _linears(5, 2 * c, 'vqa_classifier.3')
    if head == 'retrieval':
        shapes |= _linears(1, 2 * c, 'rank_output')
    if head in ('pretrain', 'retrieval'):
        shapes |= _linears(2, 2 * c, 'itm_score.fc')
    if head == 'pretrain':
        shapes |= _linears(c, c, 'mlm_score.transform.dense')
        shapes |= _norms(c, 'mlm_score.transform.LayerNorm')
        shapes |= {'mlm_score.bias': (20,), 'mlm_score.decoder.weight': (20, c)}
    generator = torch.Generator().manual_seed(sum(map(len, shapes)))
    state = {k: torch.randn(s, generator=generator) * 0.3 for k, s in shapes.items()}
    # Gains around 1, so that every part has a say.
    state.update({k: 1 + v for k, v in state.items() if _is_gain(k)})
    state['text_transformer.embeddings.position_ids'] = torch.arange(40)[None]
    return state


def _linears(out: int, into: int, *names: str) -> dict[str, tuple[int, ...]]:
    weights = {f'{name}.weight': (out, into) for name in names}
    return weights | {f'{name}.bias': (out,) for name in names}


def _norms(width: int, *names: str) -> dict[str, tuple[int, ...]]:
    return {f'{name}.{part}': (width,) for name in names for part in ('weight', 'bias')}


def _bert(name: str, width: int, inner: int, *parts: str) -> dict[str, tuple[int, ...]]:
    shapes = _linears(inner, width, f'{name}.intermediate.dense')
    shapes |= _linears(width, inner, f'{name}.output.dense')
    shapes |= _norms(width, f'{name}.output.LayerNorm')
    for part in parts:
        kinds = [f'{name}.{part}.self.{kind}' for kind in ('query', 'key', 'value')]
        shapes |= _linears(width, width, *kinds, f'{name}.{part}.output.dense')
        shapes |= _norms(width, f'{name}.{part}.output.LayerNorm')
    return shapes


def _is_gain(name: str) -> bool:
    *_, module, last = name.split('.')
    norms = ('LayerNorm', 'ln_1', 'ln_2', 'ln_pre', 'ln_post')
    return last == 'weight' and (module in norms or 'classifier.1' in name)


def features(state: dict, image: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Normalized images ``[B, 3, H, W]`` and words ``[B, L]`` to ``[B, 2 C]``."""
    seen = ids != PAD
    x = _text(state, ids, seen)
    y = _clip(state, image)
    x = _linear(state, 'cross_modal_text_transform', x)
    y = _linear(state, 'cross_modal_image_transform', y)
    types = state['token_type_embeddings.weight']
    x, y = x + types[0], y + types[1]
    everything = torch.ones(y.shape[:2], dtype=torch.bool)
    for i in range(2):
        x, y = (
            _cross(state, f'cross_modal_text_layers.{i}', x, y, seen, everything),
            _cross(state, f'cross_modal_image_layers.{i}', y, x, everything, seen),
        )
    x = torch.tanh(_linear(state, 'cross_modal_text_pooler.dense', x[:, 0]))
    y = torch.tanh(_linear(state, 'cross_modal_image_pooler.dense', y[:, 0]))
    return torch.cat((x, y), dim=-1)


def answer_logits(state: dict, pooled: torch.Tensor) -> torch.Tensor:
    x = _linear(state, 'vqa_classifier.0', pooled)
    x = F.gelu(_norm(state, 'vqa_classifier.1', x, 1e-5))
    return _linear(state, 'vqa_classifier.3', x)


def matching_logits(state: dict, pooled: torch.Tensor) -> torch.Tensor:
    return _linear(state, 'itm_score.fc', pooled)


def rank_scores(state: dict, pooled: torch.Tensor) -> torch.Tensor:
    """A model that was only pre-trained ranks by the row of ITM that says "match"."""
    if 'rank_output.weight' in state:
        return _linear(state, 'rank_output', pooled)[..., 0]
    return matching_logits(state, pooled)[..., 1]


def _linear(state, name, x):
    return x @ state[f'{name}.weight'].T + state[f'{name}.bias']


def _norm(state, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], state[f'{name}.weight'], state[f'{name}.bias'], eps)


def _attention(q, k, v, heads, seen=None):
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if seen is not None:
        scores = scores.masked_fill(~seen[:, None, None, :], -10000.0)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _clip(state, image):
    p = 'vit_model.visual.'
    weight = state[f'{p}conv1.weight']
    x = F.conv2d(image, weight, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    first = state[f'{p}class_embedding'].expand(len(x), 1, -1)
    x = torch.cat((first, x), dim=1) + state[f'{p}positional_embedding']
    x = _norm(state, f'{p}ln_pre', x, 1e-5)
    for i in range(2):
        block = f'{p}transformer.resblocks.{i}'
        y = _norm(state, f'{block}.ln_1', x, 1e-5)
        qkv = y @ state[f'{block}.attn.in_proj_weight'].T + state[f'{block}.attn.in_proj_bias']
        y = _attention(*qkv.chunk(3, dim=-1), HEADS['clip'])
        x = x + _linear(state, f'{block}.attn.out_proj', y)
        y = _linear(state, f'{block}.mlp.c_fc', _norm(state, f'{block}.ln_2', x, 1e-5))
        x = x + _linear(state, f'{block}.mlp.c_proj', y * torch.sigmoid(1.702 * y))
    return _norm(state, f'{p}ln_post', x, 1e-5)


def _text(state, ids, seen):
    p = 'text_transformer.embeddings.'
    places = seen.cumsum(dim=1) * seen + PAD
    x = state[f'{p}word_embeddings.weight'][ids] + state[f'{p}position_embeddings.weight'][places]
    x = _norm(state, f'{p}LayerNorm', x + state[f'{p}token_type_embeddings.weight'][0], 1e-5)
    for i in range(2):
        name = f'text_transformer.encoder.layer.{i}'
        x = _attend(state, f'{name}.attention', x, x, seen, HEADS['text'], 1e-5)
        x = _feed_forward(state, name, x, 1e-5)
    return x


def _cross(state, name, x, other, seen, other_seen):
    x = _attend(state, f'{name}.attention', x, x, seen, HEADS['fusion'], 1e-12)
    x = _attend(state, f'{name}.crossattention', x, other, other_seen, HEADS['fusion'], 1e-12)
    return _feed_forward(state, name, x, 1e-12)


def _attend(state, name, x, other, seen, heads, eps):
    q = _linear(state, f'{name}.self.query', x)
    k, v = (_linear(state, f'{name}.self.{kind}', other) for kind in ('key', 'value'))
    y = _linear(state, f'{name}.output.dense', _attention(q, k, v, heads, seen))
    return _norm(state, f'{name}.output.LayerNorm', x + y, eps)


def _feed_forward(state, name, x, eps):
    y = F.gelu(_linear(state, f'{name}.intermediate.dense', x))
    y = _linear(state, f'{name}.output.dense', y)
    return _norm(state, f'{name}.output.LayerNorm', x + y, eps)
