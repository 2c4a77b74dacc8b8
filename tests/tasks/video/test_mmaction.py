"""The neck in mmaction2's recognizers, and the same logits from published checkpoints."""

import pytest
import torch
from mmengine.config import Config

pytest.importorskip('mmaction')

from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.checkpoint import _load_checkpoint_to_model  # noqa: E402

from lm4ve.errors import CheckpointError, UserError
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.models import BLOCK, neck
from tests.helpers.tasks import FOLDERS
from tests.helpers.tools import convert_here  # noqa: E402
from tests.helpers.video import released as r  # noqa: E402

VIT = dict(
    type='VisionTransformer', img_size=r.SIZE, patch_size=r.PATCH, embed_dims=r.WIDTH
)
VIT.update(depth=r.DEPTH, num_heads=r.HEADS, num_frames=4, return_feat_map=True)
VIT_NECK = neck(r.WIDTH, out_type='avg_featmap')
VIT_HEAD = dict(type='TimeSformerHead', num_classes=r.CLASSES, in_channels=r.WIDTH)
SWIN = dict(
    type='lm4ve.RawSwinTransformer3D', window_size=(2, 2, 2), pretrained2d=False
)
SWIN['arch'] = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
R3D = dict(type='ResNet3d', depth=18, base_channels=4, conv1_kernel=(1, 3, 3))
R3D.update(inflate=(0, 0, 0, 0), pretrained=None, pretrained2d=False)
I3D_HEAD = dict(type='I3DHead', num_classes=5, average_clips='prob')
RESNET = dict(type='mmpretrain.ResNet', depth=18, base_channels=4, stem_channels=4)
TSN_HEAD = dict(type='TSNHead', num_classes=5, in_channels=32, average_clips='prob')
HOSTS = dict(
    vit=(VIT, VIT_NECK, VIT_HEAD),
    swin=(SWIN, neck(64), dict(I3D_HEAD, in_channels=64)),
    resnet3d=(R3D, neck(32, norm_cfg=None), dict(I3D_HEAD, in_channels=32)),
)


def recognizer(backbone, neck, head, type='mmaction.Recognizer3D', **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(type=type, backbone=backbone, neck=neck, cls_head=head, **kwargs)
    )
    return model.eval()


def noise(*shape) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('host', HOSTS)
def test_views_in_parts_equal_all_at_once(host):
    """max_testing_views, of which the last part is smaller."""
    x = noise(1, 5, 3, 4, 32, 32)
    whole, parts = (
        recognizer(*HOSTS[host], test_cfg=cfg).extract_feat(x, test_mode=True)[0]
        for cfg in (None, dict(max_testing_views=2))
    )
    torch.testing.assert_close(parts, whole)


def test_raw_video_swin_omits_only_the_final_norm():
    head = dict(I3D_HEAD, in_channels=64)
    plain = recognizer(dict(SWIN, type='SwinTransformer3D'), None, head).backbone
    bare = recognizer(SWIN, None, head).backbone
    torch.nn.init.normal_(plain.norm3.weight)
    own = plain.state_dict()
    bare.load_state_dict({k: own[k] for k in bare.state_dict()})
    x = noise(2, 3, 4, 32, 32)
    normed = plain.norm3(bare(x).permute(0, 2, 3, 4, 1))
    torch.testing.assert_close(normed.permute(0, 4, 1, 2, 3), plain(x))


# ---------------------------------------------------------------- Recognizer2D
def tsn(frames_per_clip: int = 4, **kwargs):
    sizes = dict(type='lm4ve.Recognizer2D', frames_per_clip=frames_per_clip)
    return recognizer(RESNET, neck(32, norm_cfg=None), TSN_HEAD, **sizes, **kwargs)


def logits2d(model, x):
    with torch.no_grad():
        return model.extract_feat(x, stage='head', test_mode=True)[0]


def test_recognizer2d_equals_the_computation_by_hand():
    model = tsn(2)
    x = noise(2, 4, 3, 32, 32)
    maps = model.backbone(x.flatten(0, 1))[-1]
    tokens = maps.unflatten(0, (4, 2)).permute(0, 1, 3, 4, 2).flatten(1, 3)
    out = model.neck.mapper_out(model.neck.block(model.neck.mapper_in(tokens)))
    expected = model.cls_head.fc_cls(out.unflatten(0, (2, 2)).mean((1, 2)))
    torch.testing.assert_close(logits2d(model, x), expected, atol=1e-5, rtol=1e-4)
    parts = tsn(2, test_cfg=dict(max_testing_views=2))
    torch.testing.assert_close(logits2d(parts, x), logits2d(model, x))


def test_incomplete_clips_are_refused():
    with pytest.raises(UserError, match='frames_per_clip=4'):
        tsn(4).extract_feat(noise(2, 6, 3, 32, 32))
    with pytest.raises(UserError, match='max_testing_views'):
        logits2d(tsn(4, test_cfg=dict(max_testing_views=2)), noise(2, 8, 3, 32, 32))


def test_hosts_2d_recognizer_equals_ours():
    ours, x = (
        recognizer(RESNET, neck(32), TSN_HEAD, 'lm4ve.Recognizer2D'),
        noise(2, 6, 3, 32, 32),
    )
    for test_cfg in (None, dict(max_testing_views=2)):
        host = dict(type='mmaction.Recognizer2D', test_cfg=test_cfg)
        theirs = recognizer(RESNET, neck(32), TSN_HEAD, **host)
        torch.testing.assert_close(logits2d(theirs, x), logits2d(ours, x))


# ------------------------------------------------------------------ layer decay
def test_layer_decay_gives_mappers_the_heads_rate():
    cfg = Config.fromfile(FOLDERS['video'] / 'videomae-s_llama_ssv2.py')
    cfg.model.neck.block = BLOCK
    # The depth stays: the groups are of its layers.
    cfg.model.backbone.update(embed_dims=24, num_heads=2, img_size=32, init_cfg=None)
    cfg.model.neck.in_channels = cfg.model.cls_head.in_channels = 24
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.pop('loss_scale')
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {}
    for group in wrapper.optimizer.param_groups:
        rates.update(dict.fromkeys(group['param_names'], group['lr'] / 1e-3))
    assert set(rates) == {n for n, _ in model.named_parameters()}
    assert not [n for n in rates if '.block.' in n]
    expected = dict.fromkeys(
        ('neck.mapper_in', 'neck.mapper_out', 'cls_head.fc_cls'), 1.0
    )
    expected |= {f'backbone.blocks.{i}.attn.qkv': 0.7 ** (12 - i) for i in range(12)}
    expected['backbone.patch_embed.projection'] = 0.7**13
    assert {n: rates[f'{n}.weight'] for n in expected} == pytest.approx(expected)


SIZES = ('--img-size', r.SIZE, '--num-frames', r.FRAMES)


def build(llm=None, layers=(-1,)):
    """Our model of the published one's shape, with other random weights."""
    block = dict(type='LLMBlock', checkpoint=llm, layers=layers)
    backbone = dict(VIT, num_frames=r.FRAMES, return_feat_map=llm is not None)
    model = recognizer(backbone, dict(VIT_NECK, block=block) if llm else None, VIT_HEAD)
    model.init_weights()
    return model


def convert(state, tmp_path, *args) -> dict:
    return convert_here('video', tmp_path, dict(model=state), *SIZES, *args)


@torch.no_grad()
def assert_same_logits(model, state) -> None:
    clips = torch.randn(2, 3, r.FRAMES, r.SIZE, r.SIZE)
    feats, arguments = model.extract_feat(clips[:, None], test_mode=True)
    found = model.cls_head(feats, **arguments)
    assert_equal_but_for_rounding(found, r.logits(state, clips), model)


@pytest.fixture
def llm(tmp_path):
    return r.write_llm(tmp_path / 'llama')


def test_pretrained_loads_all_but_the_head(tmp_path):
    state = r.pretrained_state()
    model = build()
    found = model.load_state_dict(convert(state, tmp_path), strict=False)
    assert sorted(found.missing_keys) == [
        'cls_head.fc_cls.bias',
        'cls_head.fc_cls.weight',
    ]
    assert not found.unexpected_keys
    expected = {
        k.replace('encoder.', ''): v
        for k, v in state.items()
        if k.startswith('encoder.')
    }
    # Fine-tuning starts with a fresh final norm.
    expected |= {
        'fc_norm.weight': torch.ones(r.WIDTH),
        'fc_norm.bias': torch.zeros(r.WIDTH),
    }
    expected |= {f'head.{k}': v for k, v in model.cls_head.fc_cls.state_dict().items()}
    assert_same_logits(model, expected)


def test_finetuned_and_llama_give_the_published_logits(llm, tmp_path, capsys):
    state = r.finetuned_state()
    model = build()
    model.load_state_dict(convert(state, tmp_path), strict=True)
    assert_same_logits(model, state)
    folder, layers = llm
    layer = 1
    state = r.llama_state([layers[layer]])
    converted = convert(state, tmp_path, '--llm', folder, '--layer', layer)
    model = build(folder, (layer,))
    model.load_state_dict(converted, strict=True)
    assert_same_logits(model, state)
    assert 'left out (10 tensors)' in capsys.readouterr().out


def test_plain_final_norm_becomes_the_necks(llm, tmp_path):
    """A fine-tuned VideoMAE may be the start of one with a block."""
    state, model = r.finetuned_state(), build(llm[0])
    converted = convert(state, tmp_path)
    # By torch's loading and by MMEngine's own, which is another function.
    for load in (
        model.load_state_dict,
        lambda s, **_: _load_checkpoint_to_model(model, s),
    ):
        torch.nn.init.zeros_(model.neck.norm.weight)
        load(dict(converted), strict=False)
        assert torch.equal(model.neck.norm.weight, state['fc_norm.weight'])
    # A norm of its own is kept.
    own = {**converted, 'neck.norm.weight': torch.full((r.WIDTH,), 3.0)}
    model.load_state_dict(own, strict=False)
    assert model.neck.norm.weight.eq(3).all()


def test_unsuitable_checkpoints_are_refused(llm, tmp_path):
    folder, layers = llm
    state = r.llama_state([layers[-1]])
    cases = [
        (
            CheckpointError,
            r'layers \[0\].*--layer',
            state,
            ('--llm', folder, '--layer', 0),
        ),
        (
            CheckpointError,
            'temporal',
            r.finetuned_state() | {'temporal': torch.ones(1)},
            (),
        ),
        (UserError, 'multiples', r.finetuned_state(), ('--num-frames', 7)),
    ]
    for error, match, content, args in cases:
        with pytest.raises(error, match=match):
            convert(content, tmp_path, *args)
