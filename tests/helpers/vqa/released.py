"""METER as it was released, computed plainly on a state with its own key names.

Written from the published description of its architecture (arXiv 2111.02387 and the
module definitions of github.com/zdou0830/METER), with functions of torch only: nothing
of lm4ve and no layer of transformers takes part. Dropout is off. Swin's tokens are
timm's.
"""

import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps

from tests.helpers.released import attention, linear, norm, tensor

#: Of every attention; no tensor tells it.
HEADS = 2
PAD = 1
#: The operations of its augmentation in their order, with the values at levels 0 and 30.
OPERATIONS = {
    'AutoContrast': (0, 1),
    'Equalize': (0, 1),
    'Rotate': (0, 30),
    'Posterize': (0, 4),
    'Solarize': (0, 256),
    'SolarizeAdd': (0, 110),
    'Color': (0.1, 1.9),
    'Contrast': (0.1, 1.9),
    'Brightness': (0.1, 1.9),
    'Sharpness': (0.1, 1.9),
    'ShearX': (0, 0.3),
    'ShearY': (0, 0.3),
    'TranslateXabs': (0, 100),
    'TranslateYabs': (0, 100),
}
#: Those that take a direction at random.
SIGNED = ('Rotate', 'ShearX', 'ShearY', 'TranslateXabs', 'TranslateYabs')
#: Where OpenCV and Pillow round otherwise: the largest difference of a pixel, and the
#: share of pixels that differ. Pillow puts the grid of a shear half a pixel lower.
ROUNDING = {
    'Rotate': (255, 0.02),
    'Color': (1, 1.0),
    'Sharpness': (3, 0.05),
    'ShearX': (255, 0.1),
    'ShearY': (255, 0.1),
}


def random_state(head: str) -> dict:
    """Return random weights by METER's names, two layers of each kind.

    Args:
        head (str): 'pretrain', 'vqa' or 'retrieval'.
    """
    state = {'text_transformer.embeddings.position_ids': torch.arange(40)[None]}
    image = torch.zeros(1, 3, 32, 32)
    words = torch.zeros(1, 2, dtype=torch.long)
    pooled = features(state, image, words)
    if head == 'vqa':
        answer_logits(state, pooled)
    else:
        matching_logits(state, pooled)
    if head == 'retrieval':
        linear(state, 'rank_output', pooled, 1)
    # What the release never calls.
    if head == 'pretrain':
        linear(state, 'mlm_score.transform.dense', torch.zeros(16), 16)
    linear(state, 'text_transformer.pooler.dense', torch.zeros(20), 20)
    norm(state, 'vit_model.ln_final', torch.zeros(9))
    tensor(state, 'vit_model.positional_embedding', 7, 9)
    return state


def features(
    state: dict, image: torch.Tensor, ids: torch.Tensor, swin=None
) -> torch.Tensor:
    """Normalized images ``[B, 3, H, W]`` (or Swin's tokens) and words to ``[B, 2 C]``."""
    padding = ids == PAD
    x = _text(state, ids, padding)
    y = swin
    if swin is None:
        y = _clip(state, image)
    x = linear(state, 'cross_modal_text_transform', x, 16)
    y = linear(state, 'cross_modal_image_transform', y, 16)
    types = tensor(state, 'token_type_embeddings.weight', 2, 16)
    x = x + types[0]
    y = y + types[1]
    for i in range(2):
        # Each side reads the other as it was before this layer.
        next_x = _cross(state, f'cross_modal_text_layers.{i}', x, y, padding, None)
        y = _cross(state, f'cross_modal_image_layers.{i}', y, x, None, padding)
        x = next_x
    x = torch.tanh(linear(state, 'cross_modal_text_pooler.dense', x[:, 0], 16))
    if swin is None:
        y = y[:, 0]
    else:
        y = y.mean(dim=1)
    y = torch.tanh(linear(state, 'cross_modal_image_pooler.dense', y, 16))
    return torch.cat((x, y), dim=-1)


def answer_logits(state: dict, pooled: torch.Tensor) -> torch.Tensor:
    x = linear(state, 'vqa_classifier.0', pooled, 32)
    x = F.gelu(norm(state, 'vqa_classifier.1', x))
    return linear(state, 'vqa_classifier.3', x, 5)


def matching_logits(state: dict, pooled: torch.Tensor) -> torch.Tensor:
    return linear(state, 'itm_score.fc', pooled, 2)


def rank_scores(state: dict, pooled: torch.Tensor) -> torch.Tensor:
    """A model that was only pre-trained ranks by the row of ITM that says "match"."""
    if 'rank_output.weight' in state:
        return linear(state, 'rank_output', pooled)[..., 0]
    return matching_logits(state, pooled)[..., 1]


def augmented(picture: Image.Image, name: str, sign: int) -> Image.Image:
    """Apply one operation of METER's augmentation at level 9 of 30.

    Args:
        picture (Image): RGB.
        name (str): Of :data:`OPERATIONS`.
        sign (int): 1 or -1, for those that have a direction.
    """
    least, most = OPERATIONS[name]
    value = 9 / 30 * (most - least) + least
    moved = sign * value
    grids = {
        'ShearX': (1, moved, 0, 0, 1, 0),
        'ShearY': (1, 0, 0, moved, 1, 0),
        'TranslateXabs': (1, 0, moved, 0, 1, 0),
        'TranslateYabs': (1, 0, 0, 0, 1, moved),
    }
    if name in grids:
        affine = Image.Transform.AFFINE
        return picture.transform(picture.size, affine, grids[name])
    if name == 'Rotate':
        return picture.rotate(moved)
    if name == 'SolarizeAdd':
        brighter = picture.point(lambda pixel: min(int(pixel + value), 255))
        return ImageOps.solarize(brighter, 128)
    if name == 'Posterize':
        return ImageOps.posterize(picture, max(1, int(value)))
    if name == 'Solarize':
        return ImageOps.solarize(picture, value)
    if name in ('AutoContrast', 'Equalize'):
        return getattr(ImageOps, name.lower())(picture)
    return getattr(ImageEnhance, name)(picture).enhance(value)


def _clip(state, image):
    p = 'vit_model.visual.'
    weight = tensor(state, f'{p}conv1.weight', 24, 3, 8, 8)
    x = F.conv2d(image, weight, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    first = tensor(state, f'{p}class_embedding', 24).expand(len(x), 1, -1)
    x = torch.cat((first, x), dim=1)
    x = x + tensor(state, f'{p}positional_embedding', 17, 24)
    x = norm(state, f'{p}ln_pre', x)
    for i in range(2):
        block = f'{p}transformer.resblocks.{i}'
        weight = tensor(state, f'{block}.attn.in_proj_weight', 72, 24)
        bias = tensor(state, f'{block}.attn.in_proj_bias', 72)
        y = norm(state, f'{block}.ln_1', x)
        q, k, v = F.linear(y, weight, bias).chunk(3, dim=-1)
        y = attention(q, k, v, HEADS)
        x = x + linear(state, f'{block}.attn.out_proj', y, 24)
        y = norm(state, f'{block}.ln_2', x)
        y = linear(state, f'{block}.mlp.c_fc', y, 32)
        y = y * torch.sigmoid(1.702 * y)
        x = x + linear(state, f'{block}.mlp.c_proj', y, 24)
    return norm(state, f'{p}ln_post', x)


def _text(state, ids, padding):
    p = 'text_transformer.embeddings.'
    places = (~padding).cumsum(dim=1) * ~padding + PAD
    x = tensor(state, f'{p}word_embeddings.weight', 20, 20)[ids]
    x = x + tensor(state, f'{p}position_embeddings.weight', 40, 20)[places]
    x = x + tensor(state, f'{p}token_type_embeddings.weight', 2, 20)[0]
    x = norm(state, f'{p}LayerNorm', x)
    for i in range(2):
        name = f'text_transformer.encoder.layer.{i}'
        x = _attend(state, f'{name}.attention', x, x, padding, 1e-5)
        x = _feed_forward(state, name, x, 28, 1e-5)
    return x


def _cross(state, name, x, other, padding, other_padding):
    x = _attend(state, f'{name}.attention', x, x, padding, 1e-12)
    x = _attend(state, f'{name}.crossattention', x, other, other_padding, 1e-12)
    return _feed_forward(state, name, x, 64, 1e-12)


def _attend(state, name, x, other, padding, eps):
    width = x.shape[-1]
    q = linear(state, f'{name}.self.query', x, width)
    k = linear(state, f'{name}.self.key', other, width)
    v = linear(state, f'{name}.self.value', other, width)
    y = attention(q, k, v, HEADS, padding)
    y = linear(state, f'{name}.output.dense', y, width)
    return norm(state, f'{name}.output.LayerNorm', x + y, eps)


def _feed_forward(state, name, x, hidden, eps):
    y = F.gelu(linear(state, f'{name}.intermediate.dense', x, hidden))
    y = linear(state, f'{name}.output.dense', y, x.shape[-1])
    return norm(state, f'{name}.output.LayerNorm', x + y, eps)
