"""METER as it was released, computed plainly on a state with its own key names.

Written from the published description of its architecture (arXiv 2111.02387 and the module
definitions of github.com/zdou0830/METER), with functions of torch only: nothing of lm4ve
and no layer of transformers takes part. Dropout is off. Swin's tokens are timm's.
"""

import torch
import torch.nn.functional as F

from tests.tasks.vqa.tiny import named

#: Head counts, and what no tensor tells.
HEADS = dict(clip=2, text=2, fusion=2)
PAD = 1
_CLIP = 'vit_model.visual.transformer.resblocks.{0,1}'
_TEXT = 'text_transformer.encoder.layer.{0,1}'
_PARTS = '{self.query,self.key,self.value,output.dense}'
_FUSION = 'cross_modal_{text,image}_layers.{0,1}'
#: METER's names, alternatives in braces, and the outputs and inputs of linear layers: 24, 20
#: and 16 wide, two layers of each kind.
LINEARS = {
    **{f'{_CLIP}.attn.out_proj': (24, 24), f'{_CLIP}.mlp.c_fc': (32, 24)},
    **{f'{_CLIP}.mlp.c_proj': (24, 32), f'{_CLIP}.attn.in_proj_': (72, 24)},
    **{f'{_TEXT}.attention.{_PARTS}': (20, 20), f'{_TEXT}.intermediate.dense': (28, 20)},
    f'{_TEXT}.output.dense': (20, 28),
    f'{_FUSION}.{{attention,crossattention}}.{_PARTS}': (16, 16),
    **{f'{_FUSION}.intermediate.dense': (64, 16), f'{_FUSION}.output.dense': (16, 64)},
    **{'text_transformer.pooler.dense': (20, 20), 'cross_modal_text_transform': (16, 20)},
    'cross_modal_image_transform': (16, 24),
    'cross_modal_{text,image}_pooler.dense': (16, 16),
}
#: Layer norms and their widths.
NORMS = {
    **{
        'vit_model.ln_final': 9,
        'vit_model.visual.{ln_pre,ln_post}': 24,
        f'{_CLIP}.{{ln_1,ln_2}}': 24,
    },
    'text_transformer.embeddings.LayerNorm': 20,
    f'{_TEXT}.{{attention.output,output}}.LayerNorm': 20,
    f'{_FUSION}.{{attention.output,crossattention.output,output}}.LayerNorm': 16,
}
OTHERS = {
    'vit_model.positional_embedding': (7, 9),
    'vit_model.visual.class_embedding': (24,),
    'vit_model.visual.positional_embedding': (17, 24),
    'vit_model.visual.conv1.weight': (24, 3, 8, 8),
    'text_transformer.embeddings.word_embeddings.weight': (20, 20),
    'text_transformer.embeddings.position_embeddings.weight': (40, 20),
    'text_transformer.embeddings.token_type_embeddings.weight': (2, 20),
    'token_type_embeddings.weight': (2, 16),
}
#: Linear layers of what was trained.
OF_HEADS = dict(
    vqa={'vqa_classifier.0': (32, 32), 'vqa_classifier.3': (5, 32)},
    retrieval={'rank_output': (1, 32), 'itm_score.fc': (2, 32)},
    pretrain={'itm_score.fc': (2, 32), 'mlm_score.transform.dense': (16, 16)},
)


def random_state(head: str) -> dict:
    """Return random weights by METER's names.

    Args:
        head (str): 'pretrain', 'vqa' or 'retrieval'.
    """
    shapes, gains = dict(OTHERS), dict(NORMS)
    gains |= {'vqa_classifier.1': 32} if head == 'vqa' else {}
    for template, shape in (LINEARS | OF_HEADS[head]).items():
        for name in named(template):
            name = name if name.endswith('_') else f'{name}.'
            shapes |= {f'{name}weight': shape, f'{name}bias': shape[:1]}
    for template, width in gains.items():
        shapes |= dict.fromkeys(named(f'{template}.{{weight,bias}}'), (width,))
    generator = torch.Generator().manual_seed(sum(map(len, shapes)))
    state = {k: torch.randn(s, generator=generator) * 0.3 for k, s in shapes.items()}
    for template in gains:  # around 1, so that every part has a say
        for name in named(template):
            state[f'{name}.weight'] += 1
    state['text_transformer.embeddings.position_ids'] = torch.arange(40)[None]
    return state


def features(state: dict, image: torch.Tensor, ids: torch.Tensor, swin=None) -> torch.Tensor:
    """Normalized images ``[B, 3, H, W]`` (or Swin's tokens) and words to ``[B, 2 C]``."""
    seen = ids != PAD
    x = _text(state, ids, seen)
    y = _clip(state, image) if swin is None else swin
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
    y = y[:, 0] if swin is None else y.mean(dim=1)
    y = torch.tanh(_linear(state, 'cross_modal_image_pooler.dense', y))
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
