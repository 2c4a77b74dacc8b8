"""The models of the follow-ups give the released outputs after conversion."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('monai')
from mmengine.registry import MODELS, DefaultScope  # noqa: E402

from lm4ve.errors import CheckpointError  # noqa: E402
from lm4ve.tasks.medical.converters import convert_medical  # noqa: E402
from tests.helpers.families import random_model, write_huggingface  # noqa: E402
from tests.tasks.image import released as llama  # noqa: E402
from tests.tasks.medical import released as r  # noqa: E402


def assert_same(cfg, theirs, x, scope='mmengine', state=None, **options):
    """Compare outputs with those of our model, which loads the converted state; return it."""
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg)
    model.init_weights()
    converted = convert_medical(state or theirs.state_dict(), **options)
    model.load_state_dict(converted, strict=True)
    torch.testing.assert_close(model.eval()(x), theirs(x), atol=1e-5, rtol=1e-5)
    return model


def inserted(backbone, after, **neck):
    return dict(
        type='LLMBlockInsert',
        after=after,
        backbone=backbone,
        neck=dict(type='LLMBlockNeck', **neck),
    )


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def meta(tmp_path):
    """A language model of one layer in Meta's layout, and that layer by released names."""
    layers = [llama.llama_layer()]
    path = llama.write_meta(tmp_path / 'llama', layers)
    state = {f'llama.layers.0.{k}': v.float() for k, v in layers[0].items()}
    return path, dict(state, **{'llama.norm.weight': torch.ones(llama.DIM)})


LOSS = [
    dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5),
    dict(type='lm4ve.BinaryDiceLoss'),
]
CMUNEXT = dict(type='lm4ve.CMUNeXt', dims=r.DIMS, depths=(1,) * 5)


def cmunext(backbone):
    head = dict(num_classes=2, out_channels=1, threshold=0.5, loss_decode=LOSS)
    head = dict(type='lm4ve.CMUNeXtHead', in_channels=r.DIMS, **head)
    test = dict(train_cfg={}, test_cfg=dict(mode='whole'))
    return dict(type='EncoderDecoder', backbone=backbone, decode_head=head, **test)


def test_cmunext_gives_the_released_logits_and_loss():
    theirs, x = r.randomized(r.CMUNeXt()), torch.randn(2, 3, 32, 48)
    model = assert_same(cmunext(CMUNEXT), theirs, x, 'mmseg')
    logits, truth = torch.randn(2, 1, 32, 48), torch.randint(0, 2, (2, 32, 48))
    p, t = logits.sigmoid().flatten(1), truth.flatten(1)
    dice = (2 * (p * t).sum(1) + 1e-5) / (p.sum(1) + t.sum(1) + 1e-5)
    expected = 0.5 * F.binary_cross_entropy(p, t.float()) + 1 - dice.mean()
    loss = sum(loss(logits, truth) for loss in model.decode_head.loss_decode)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('family', ['llama', 'qwen2'])
def test_llm4seg_gives_the_released_logits(family, tmp_path):
    llm, theirs = str(write_huggingface(tmp_path / 'llm', family)), r.randomized(r.CMUNeXt())
    theirs.llm4seg = r.LLM4Seg(random_model(family).layers[-1], 32).eval()
    block = dict(type='LLMBlock', checkpoint=llm, causal=True, rotary='llm4seg', final_norm=False)
    backbone = inserted(CMUNEXT, 'encoder5', in_channels=16, mapper=dict(bias=True), block=block)
    x = torch.randn(2, 3, 32, 48)
    assert_same(cmunext(backbone), theirs, x, 'mmseg', llm=llm)
    with pytest.raises(CheckpointError, match='differ from layers'):
        convert_medical(theirs.state_dict(), llm, layer=0)


def test_medvisionllama_gives_the_released_logits(meta):
    sizes = dict(image_size=r.SIZE, patch_size=r.PATCH, embed_dims=r.WIDTH, depth=r.DEPTH)
    vit, x = dict(type='lm4ve.VolumeViT', **sizes), torch.randn(2, 1, *r.SIZE)
    theirs = r.randomized(r.MedVisionLlama())
    assert_same(dict(type='lm4ve.VolumeSegmentor', backbone=vit), theirs, x)

    (llm, block), state, mappers = meta, theirs.state_dict(), {}
    state |= {k.replace('llama.', 'llm.', 1): v for k, v in block.items()}
    for n, (out, width) in {1: (llama.DIM, r.WIDTH), 2: (r.WIDTH, llama.DIM)}.items():
        # loralib adds the update to `weight` when a model goes to evaluation.
        shapes = dict(weight=(out, width), bias=(out,), lora_A=(4, width), lora_B=(out, 4))
        drawn = {name: llama.random(*shape) for name, shape in shapes.items()}
        state |= {f'llm_dim_mapper{n}.{name}': value for name, value in drawn.items()}
        mappers |= {f'llama_dim_mapper{n}.{name}': drawn[name] for name in ('weight', 'bias')}

    def mapped(x):
        hidden = llama.linear(mappers, x, 'llama_dim_mapper1')
        return llama.llama(block | mappers, x) + hidden @ mappers['llama_dim_mapper2.weight'].mT

    theirs.mapped.forward = mapped
    lora = dict(lora=dict(r=4, alpha=1, bias='lora_only'), mapper=dict(bias=True))
    neck = dict(in_channels=r.WIDTH, residual='inner', block=dict(type='LLMBlock', checkpoint=llm))
    cfg = dict(type='lm4ve.VolumeSegmentor', backbone=inserted(vit, 'embed', **neck, **lora))
    model = assert_same(cfg, theirs, x, state=state, llm=llm)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        f'backbone.llm_neck.mapper_{side}.base_layer.weight' for side in ('in', 'out')
    }


@pytest.mark.parametrize('mode', ['plain', 'none', 'inner', 'outer', 'both', 'skip'])
def test_vivit_gives_the_released_logits_with_every_residual(mode, meta):
    theirs, x = r.randomized(r.ViViT()), torch.randn(2, 3, 4, 8, 8)
    (llm, block), state, skip = meta, theirs.state_dict(), mode == 'skip'
    sizes = dict(image_size=8, frames=4, frame_patch_size=2, depth=r.DEPTH, embed_dims=r.WIDTH)
    vivit = dict(type='lm4ve.ViViT', **sizes, num_heads=2, head_dims=8)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=r.WIDTH)
    cfg = dict(type='ImageClassifier', backbone=vivit, head=head)
    if mode == 'plain':
        assert_same(cfg, theirs, x, 'mmpretrain')
        return
    vivit['out_type'] = 'raw'
    neck = dict(residual='outer', mapper=dict(skip='LeakyReLU')) if skip else dict(residual=mode)
    neck.update(norm_cfg=None, out_type='cls_token', block=dict(type='LLMBlock', checkpoint=llm))
    cfg['neck'] = dict(type='LLMBlockNeck', in_channels=r.WIDTH, **neck)
    shapes = dict(mapper1=(llama.DIM, r.WIDTH), mapper2=(r.WIDTH, llama.DIM))
    shapes['dim_mapper'] = (r.WIDTH, r.WIDTH)
    own = {f'llama_dim_{n}.weight': llama.random(*shape) for n, shape in shapes.items()}
    first, second, beside = own.values()

    def mapped(x):
        out = llama.llama(block | own, x)
        if mode in ('inner', 'both'):
            out = out + x @ first.mT @ second.mT
        out = out + F.leaky_relu(x @ beside.mT) if skip else out
        return out + x if mode in ('outer', 'both') else out

    theirs.mapped.forward = mapped
    assert_same(cfg, theirs, x, 'mmpretrain', state=state | block | own, llm=llm, skip=skip)
