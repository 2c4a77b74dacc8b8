"""The models of the follow-ups give the released outputs after conversion."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from llm4seg.converters import convert_medical
from lm4ve.errors import CheckpointError
from lm4ve.runner.config import read_config
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import random_model, write_huggingface
from tests.helpers.image import released as llama
from tests.helpers.medical import released as r
from tests.helpers.tasks import FOLDERS
from tests.helpers.tools import convert_here


def assert_same(cfg, theirs, x, scope='mmengine', state=None, **options):
    """Compare outputs with those of our model, which loads the converted state; return it."""
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg)
    converted = convert_medical(state or theirs.state_dict(), **options)
    model.load_state_dict(converted, strict=True)
    expected = theirs(x)
    if scope == 'mmseg':
        # Between its data set and its network, LLM4Seg's code divides by 255.
        expected = theirs(x / 255)
    assert_equal_but_for_rounding(model.eval()(x), expected, model)
    return model


def neck_of(llm, channels, **fields):
    fields.setdefault('block', dict(type='LLMBlock', checkpoint=llm))
    return dict(type='LLMBlockNeck', in_channels=channels, **fields)


@pytest.fixture
def meta(tmp_path):
    """A language model in Meta's layout; its layer and two mappers by released names."""
    llm, layers = llama.write_llm(tmp_path / 'llama')
    return llm, llama.llama_state(layers[-1:], plain=dict)


CMUNEXT = dict(type='lm4ve.CMUNeXt', dims=r.DIMS, depths=(1,) * 5)
LOSS = [dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5)]


def segmentor(backbone):
    head = dict(
        type='lm4ve.CMUNeXtHead', in_channels=r.DIMS, num_classes=2, out_channels=1
    )
    head.update(threshold=0.5, loss_decode=[*LOSS, dict(type='lm4ve.BinaryDiceLoss')])
    return dict(type='EncoderDecoder', backbone=backbone, decode_head=head)


def test_cmunext_gives_the_released_logits_and_loss():
    theirs, x = r.randomized(r.CMUNeXt()), torch.randn(2, 3, 32, 48)
    model = assert_same(segmentor(CMUNEXT), theirs, x, 'mmseg')
    logits, truth = torch.randn(2, 1, 32, 48), torch.randint(0, 2, (2, 32, 48))
    p, t = logits.sigmoid().flatten(1), truth.flatten(1).float()
    dice = (2 * (p * t).sum(1) + 1e-5) / (p.sum(1) + t.sum(1) + 1e-5)
    expected = 0.5 * F.binary_cross_entropy(p, t) + 1 - dice.mean()
    loss = sum(loss(logits, truth) for loss in model.decode_head.loss_decode)
    torch.testing.assert_close(loss, expected)


def test_released_config_gives_the_network_the_released_pixels():
    """``Normalize()`` of albumentations on BGR, then one more division by 255."""
    cfg = read_config(FOLDERS['medical'] / 'cmunext_llama-3.2-1b-released_busi.py')
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    data = dict(
        inputs=[torch.from_numpy(picture).permute(2, 0, 1)],
        data_samples=[
            SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 256, 256)))
        ],
    )
    ours = preprocessor(data, training=True)['inputs'][0]
    ours = ours.permute(1, 2, 0).double() * cfg.model.backbone.backbone.input_scale
    mean = np.array([0.485, 0.456, 0.406])
    std = np.array([0.229, 0.224, 0.225])
    theirs = (picture / 255 - mean) / std / 255
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-8)


def test_a_checkpoint_decides_the_factor_of_its_pixels():
    sizes = dict(CMUNEXT, dims=(4,) * 5)
    made = MODELS.build(dict(sizes, input_scale=1 / 255))
    plain = MODELS.build(sizes)
    plain.load_state_dict(made.state_dict())
    assert plain.input_scale.item() == pytest.approx(1 / 255)
    # One of before there was a factor.
    older = made.state_dict()
    del older['input_scale']
    plain.load_state_dict(older)
    assert plain.input_scale.item() == 1


@pytest.mark.parametrize('family', ['llama', 'qwen2'])
def test_llm4seg_gives_the_released_logits(family, tmp_path, capsys):
    llm, theirs = (
        str(write_huggingface(tmp_path / 'llm', family)),
        r.randomized(r.CMUNeXt()),
    )
    theirs.llm4seg = r.LLM4Seg(random_model(family).layers[-1], 32).eval()
    block = dict(
        type='LLMBlock', checkpoint=llm, causal=True, rotary='llm4seg', final_norm=False
    )
    neck = neck_of(llm, 16, mapper=dict(bias=True), block=block)
    backbone = dict(
        type='LLMBlockInsert', after='encoder5', backbone=CMUNEXT, neck=neck
    )
    assert_same(
        segmentor(backbone), theirs, torch.randn(2, 3, 32, 48), 'mmseg', llm=llm
    )
    with pytest.raises(CheckpointError, match='differ from layers'):
        convert_medical(theirs.state_dict(), llm, layer=0)
    convert_here('medical', tmp_path, theirs.state_dict(), '--llm', llm)
    of_block = len(theirs.llm4seg.llm.state_dict())
    assert f'is left out ({of_block} tensors)' in capsys.readouterr().out


@pytest.mark.parametrize('kv_heads', [4, 2, 1])
def test_medvisionllama_gives_the_released_logits(kv_heads, tmp_path):
    """Of four heads; with two of keys and values, they are shared as only that code does."""
    llm, layers = llama.write_llm(tmp_path / 'llama', num_key_value_heads=kv_heads)
    block = llama.llama_state(layers[-1:], plain=dict)
    sizes = dict(
        image_size=r.SIZE, patch_size=r.PATCH, embed_dims=r.WIDTH, depth=r.DEPTH
    )
    vit, x = dict(type='lm4ve.VolumeViT', **sizes), torch.randn(2, 1, *r.SIZE)
    theirs = r.randomized(r.MedVisionLlama())
    assert_same(dict(type='lm4ve.VolumeSegmentor', backbone=vit), theirs, x)

    state = theirs.state_dict()
    state |= {
        k.replace('llama.', 'llm.'): v
        for k, v in block.items()
        if k.startswith('llama.')
    }
    for n in (1, 2):
        name = f'llama_dim_mapper{n}'
        # loralib adds the update to the weight when a model goes to evaluation.
        out, width = block[f'{name}.weight'].shape
        block[f'{name}.bias'] = llama.random(out)
        state |= {k.replace('llama', 'llm'): v for k, v in block.items() if name in k}
        state[f'llm_dim_mapper{n}.lora_A'] = llama.random(4, width)
        state[f'llm_dim_mapper{n}.lora_B'] = llama.random(out, 4)
    theirs.mapped.forward = lambda x: (
        llama.llama(block, x)
        + llama.linear(block, 'llama_dim_mapper1', x)
        @ block['llama_dim_mapper2.weight'].mT
    )
    lora = dict(lora=dict(r=4, alpha=1, bias='lora_only'), mapper=dict(bias=True))
    lora['block'] = dict(type='LLMBlock', checkpoint=llm, kv_heads='tiled')
    neck = neck_of(llm, r.WIDTH, residual='inner', **lora)
    backbone = dict(type='LLMBlockInsert', after='embed', backbone=vit, neck=neck)
    cfg = dict(type='lm4ve.VolumeSegmentor', backbone=backbone)
    assert_same(cfg, theirs, x, state=state, llm=llm)
    if kv_heads != 2:
        return
    lora['block'].pop('kv_heads')
    with pytest.raises(CheckpointError, match=r"block.kv_heads='tiled'.*'grouped'"):
        assert_same(cfg, theirs, x, state=state, llm=llm)


MAPPERS = ('mapper1', 'mapper2', 'dim_mapper')


@pytest.mark.parametrize('mode', ['plain', 'none', 'inner', 'outer', 'both', 'skip'])
def test_vivit_gives_the_released_logits_with_every_residual(mode, meta):
    theirs, x = r.randomized(r.ViViT()), torch.randn(2, 3, 4, 8, 8)
    (llm, block), skip, plain = meta, mode == 'skip', mode == 'plain'
    sizes = dict(
        image_size=8, frames=4, frame_patch_size=2, depth=r.DEPTH, embed_dims=r.WIDTH
    )
    sizes.update(num_heads=2, head_dims=8, out_type='cls_token' if plain else 'raw')
    head = dict(type='LinearClsHead', num_classes=3, in_channels=r.WIDTH)
    cfg = dict(
        type='ImageClassifier', backbone=dict(type='lm4ve.ViViT', **sizes), head=head
    )
    if plain:
        assert_same(cfg, theirs, x, 'mmpretrain')
        return
    neck = (
        dict(residual='outer', mapper=dict(skip='LeakyReLU'))
        if skip
        else dict(residual=mode)
    )
    cfg['neck'] = neck_of(llm, r.WIDTH, norm_cfg=None, out_type='cls_token', **neck)
    block['llama_dim_dim_mapper.weight'] = llama.random(r.WIDTH, r.WIDTH)

    def mapped(x):
        first, second, beside = (block[f'llama_dim_{n}.weight'] for n in MAPPERS)
        out = llama.llama(block, x)
        out = out + x @ first.mT @ second.mT if mode in ('inner', 'both') else out
        out = out + F.leaky_relu(x @ beside.mT) if skip else out
        return out + x if mode in ('outer', 'both') else out

    theirs.mapped.forward = mapped
    state = theirs.state_dict() | block
    assert_same(cfg, theirs, x, 'mmpretrain', state=state, llm=llm, skip=skip)
