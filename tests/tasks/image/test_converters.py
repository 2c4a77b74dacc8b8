"""Released checkpoints give their logits; mmpretrain's encoders run without their final norm."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint

from lm4ve.errors import CheckpointError, UserError
from tests.helpers import models
from tests.helpers.tools import run_tool_here
from tests.tasks.image import released as r

pytest.importorskip('mmpretrain')


def convert(*args) -> None:
    run_tool_here('convert_checkpoint.py', 'image', *args)


def build(llm=None, layers=(-1,)):
    """Our model of the released one's shape, with other random weights."""
    sizes = dict(embed_dims=r.WIDTH, num_layers=r.DEPTH, num_heads=r.HEADS)
    arch = dict(sizes, feedforward_channels=4 * r.WIDTH)
    backbone = dict(type='mmpretrain.VisionTransformer', img_size=r.SIZE, patch_size=r.PATCH)
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=r.CLASSES)
    neck = None
    if llm is not None:
        backbone.update(out_type='raw', final_norm=False)
        block = dict(type='LLMBlock', checkpoint=llm, layers=layers)
        neck = dict(type='LLMBlockNeck', in_channels=r.WIDTH, out_type='cls_token', block=block)
    head, backbone = dict(head, in_channels=r.WIDTH), dict(backbone, arch=arch)
    cfg = dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck, head=head)
    model = MODELS.build(cfg)
    model.init_weights()
    model.eval()
    return model


def assert_same_logits(model, path, state) -> None:
    converted = torch.load(path, weights_only=True)
    model.load_state_dict(converted['state_dict'], strict=True)
    images = torch.randn(3, 3, r.SIZE, r.SIZE)
    with torch.no_grad():
        ours = model(images)
    torch.testing.assert_close(ours, r.logits(state, images), atol=1e-5, rtol=1e-5)


@pytest.fixture
def llm(tmp_path):
    return r.write_llm(tmp_path / 'llama')


@pytest.fixture
def run(tmp_path):
    """Return a function that writes a released file, converts it and returns the new file."""

    def run(state, *args, **extra) -> Path:
        src = r.write_released(tmp_path / 'src.pth', state, **extra)
        convert(src, tmp_path / 'new/dst.pth', *args)
        return tmp_path / 'new/dst.pth'

    return run


# -------------------------------------------------------------------- parity
def test_plain_vit_gives_the_released_logits(run, tmp_path):
    state, average = r.vit_state(), r.vit_state()
    assert_same_logits(build(), run(state), state)
    assert_same_logits(build(), run(state, '--ema', model_ema=average), average)
    # Before PyTorch 1.6 files were no zip, and cannot be memory-mapped.
    wrapped = dict(state_dict={f'module.{k}': v for k, v in state.items()})
    torch.save(wrapped, tmp_path / 'other.pth', _use_new_zipfile_serialization=False)
    convert(tmp_path / 'other.pth', tmp_path / 'dst.pth')
    assert_same_logits(build(), tmp_path / 'dst.pth', state)


@pytest.mark.parametrize('chosen, half', [((-1,), True), ((1,), False), ((-2, -1), False)])
def test_vit_llama_gives_the_released_logits(chosen, half, llm, run, capsys):
    llm, layers = llm
    state = r.llama_state([layers[i] for i in chosen])
    if half:
        state = {k: v.half() for k, v in state.items()}
    # Buffers that other versions of LLaMA's code keep, without use on image tokens.
    at = 'llama.layers.0.attention'
    unused = (f'{at}.inner_attention.rope.freqs', f'{at}.cache_k', 'llama.freqs_cis')
    dst = run(state | {name: torch.zeros(4) for name in unused}, '--llm', llm, '--layer', *chosen)
    assert_same_logits(build(llm, chosen), dst, {k: v.float() for k, v in state.items()})
    assert 'left out (' in capsys.readouterr().out
    # The block is not stored: no tensor has the language model's hidden width.
    stored = torch.load(dst, weights_only=True)['state_dict']
    assert not any(r.HIDDEN in t.shape for t in stored.values())


UNLIKE = [
    ('llama.layers.1.ffn_norm.weight', 'add', 'llama.layers.1.ffn_norm.weight'),
    ('llama_dim_mapper2.weight', 'drop', 'neck.mapper_out.weight'),
    ('llama.layers.0.attention.wo.weight', 'drop', 'llama.layers.0.attention.wo.weight'),
    ('llama.layers.0.feed_forward.w3.weight', lambda w: w[3, 4].add_(0.25), '0.25'),
    ('llama.layers.0.attention.wq.weight', lambda w: w.copy_(w.flip(0)), 'attention.wq'),
    ('llama.norm.weight', lambda w: w[2].fill_(1.5), 'llama.norm.weight'),
]


@pytest.mark.parametrize('key, change, message', UNLIKE)
def test_states_unlike_the_release_are_refused(key, change, message, llm, run):
    llm, layers = llm
    state = r.llama_state([layers[-1]])
    if change == 'add':
        state[key] = torch.zeros(3)
    elif change == 'drop':
        del state[key]
    else:
        change(state[key])
    with pytest.raises(CheckpointError, match=message):
        run(state, '--llm', llm)


def test_block_of_another_language_model_is_refused(llm, checkpoints, tmp_path, run):
    llm, layers = llm
    other, _ = r.write_llm(tmp_path / 'other', seed=1)
    state = r.llama_state([layers[1]])
    with pytest.raises(CheckpointError, match='llama.layers.0.*largest difference'):
        run(state, '--llm', other)
    with pytest.raises(CheckpointError, match=r'layers \[2\].*--layer'):
        run(state, '--llm', llm)
    with pytest.raises(UserError):
        run(state, '--llm', checkpoints('gpt2'))
    with pytest.raises(UserError, match='--llm'):
        run(state)
    with pytest.raises(UserError, match='--llm'):
        run(r.vit_state(), '--llm', llm)
    assert not (tmp_path / 'new/dst.pth').exists()


ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
VIT = dict(type='VisionTransformer', arch=ARCH, img_size=32, patch_size=16)


@pytest.mark.parametrize('way', ['load', 'backbone'])
def test_a_plain_encoders_final_norm_becomes_the_necks(way, tmp_path):
    plain = models.image(block=False)[0]
    plain.backbone.ln1.weight.data.fill_(3)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    model = models.image()[0]
    if way == 'load':
        load_checkpoint(model, str(tmp_path / 'plain.pth'))
    else:
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 'plain.pth'), prefix='backbone.')
        model.backbone.init_cfg = init
        model.init_weights()
    assert model.neck.norm.weight.eq(3).all()
    assert torch.equal(model.backbone.layers[0].ln1.bias, plain.backbone.layers[0].ln1.bias)


def test_a_host_without_class_token_is_refused():
    backbone = dict(VIT, with_cls_token=False, out_type='raw', final_norm=False)
    neck = models.neck(16, out_type='cls_token')
    with pytest.raises(UserError, match='class token'):
        MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck))
