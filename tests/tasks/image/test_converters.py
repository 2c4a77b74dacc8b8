"""The released image checkpoints give the same logits after conversion."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from safetensors.torch import save_file

import lm4ve  # noqa: F401
from lm4ve.blocks.language_model import open_language_model
from lm4ve.errors import CheckpointError, UserError
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here
from tests.tasks.image import released as r

pytest.importorskip('mmpretrain')


def convert(*args) -> None:
    run_tool_here('image/convert_checkpoint.py', *args)


def build(llm=None, layers=(-1,), **block):
    """Our model of the released one's shape, with other random weights."""
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(
                embed_dims=r.WIDTH,
                num_layers=r.DEPTH,
                num_heads=r.HEADS,
                feedforward_channels=4 * r.WIDTH,
            ),
            img_size=r.SIZE,
            patch_size=r.PATCH,
        ),
        head=dict(
            type='mmpretrain.VisionTransformerClsHead', num_classes=r.CLASSES, in_channels=r.WIDTH
        ),
    )
    if llm is not None:
        cfg['backbone'].update(out_type='raw', final_norm=False)
        cfg['neck'] = dict(
            type='LLMBlockNeck',
            in_channels=r.WIDTH,
            out_type='cls_token',
            block=dict(type='LLMBlock', checkpoint=llm, layers=layers, **block),
        )
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


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def layers():
    return [r.llama_layer() for _ in range(r.LLM_LAYERS)]


@pytest.fixture
def llm(layers, tmp_path):
    return r.write_meta(tmp_path / 'llama', layers)


def test_plain_vit(tmp_path):
    state = r.vit_state()
    src = r.write_released(tmp_path / 'src.pth', state)
    convert(src, tmp_path / 'dst.pth')
    assert_same_logits(build(), tmp_path / 'dst.pth', state)


@pytest.mark.parametrize('layer', [-1, 1])
def test_vit_llama(layer, layers, llm, tmp_path, capsys):
    state = r.llama_state([layers[layer]])
    src = r.write_released(tmp_path / 'src.pth', state)
    dst = tmp_path / 'new' / 'dst.pth'
    convert(src, dst, '--llm', llm, '--layer', layer)
    assert_same_logits(build(llm, (layer,)), dst, state)
    assert 'left out (10 tensors)' in capsys.readouterr().out
    # The block is not stored: no tensor has the language model's hidden width.
    stored = torch.load(dst, weights_only=True)['state_dict']
    assert not any(r.HIDDEN in t.shape for t in stored.values())


def test_two_layers(layers, llm, tmp_path):
    state = r.llama_state(layers[1:])
    src = r.write_released(tmp_path / 'src.pth', state)
    dst = tmp_path / 'dst.pth'
    convert(src, dst, '--llm', llm, '--layer', -2, -1)
    assert_same_logits(build(llm, (-2, -1)), dst, state)


def test_huggingface_layout(layers, llm, tmp_path):
    """The same weights in Hugging Face's names and row order serve as well."""
    meta = open_language_model(llm, None)
    weights = meta.checkpoint.weights
    folder = tmp_path / 'hf'
    folder.mkdir()
    meta.config.save_pretrained(folder)
    save_file(
        {f'model.{n}': weights.read(n).contiguous() for n in weights.names()},
        str(folder / 'model.safetensors'),
    )
    state = r.llama_state([layers[-1]])
    src = r.write_released(tmp_path / 'src.pth', state)
    dst = tmp_path / 'dst.pth'
    convert(src, dst, '--llm', folder)
    assert_same_logits(build(str(folder)), dst, state)
    # The record is of the weights, not of their layout.
    assert_same_logits(build(llm), dst, state)


def test_containers_prefix_and_average(tmp_path):
    """Bare states, `module.` prefixes and `model_ema` are understood."""
    state, average = r.vit_state(), r.vit_state()
    dst = tmp_path / 'dst.pth'
    torch.save(state, tmp_path / 'bare.pth')
    convert(tmp_path / 'bare.pth', dst)
    assert_same_logits(build(), dst, state)
    wrapped = {f'module.{k}': v for k, v in state.items()}
    torch.save(dict(state_dict=wrapped), tmp_path / 'wrapped.pth')
    convert(tmp_path / 'wrapped.pth', dst)
    assert_same_logits(build(), dst, state)
    # From before PyTorch 1.6: no zip, which cannot be memory-mapped.
    torch.save(state, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    convert(tmp_path / 'old.pth', dst)
    assert_same_logits(build(), dst, state)
    src = r.write_released(tmp_path / 'src.pth', state, model_ema=average)
    convert(src, dst, '--ema')
    assert_same_logits(build(), dst, average)
    with pytest.raises(UserError, match='no moving average.*expected.*found'):
        convert(tmp_path / 'bare.pth', dst, '--ema')


def test_half_precision_file(layers, llm, tmp_path):
    """A file stored in 16 bits becomes fp32, its block compared in 16 bits."""
    state = {k: v.half() for k, v in r.llama_state([layers[-1]]).items()}
    src = r.write_released(tmp_path / 'src.pth', state)
    dst = tmp_path / 'dst.pth'
    convert(src, dst, '--llm', llm)
    state = {k: v.float() for k, v in state.items()}
    assert_same_logits(build(llm), dst, state)


def test_what_others_keep_is_dropped(layers, llm, tmp_path):
    state = r.llama_state([layers[-1]])
    extra = dict(state)
    at = 'llama.layers.0.attention'
    for name in (
        f'{at}.inner_attention.rope.freqs',
        f'{at}.rope.freqs',
        f'{at}.cache_k',
        f'{at}.rotary_emb.inv_freq',
        'llama.rope.freqs',
        'llama.freqs_cis',
    ):
        extra[name] = torch.zeros(4)
    src = r.write_released(tmp_path / 'src.pth', extra)
    dst = tmp_path / 'dst.pth'
    convert(src, dst, '--llm', llm)
    assert_same_logits(build(llm), dst, state)


# ------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    'key',
    [
        'head_dist.weight',
        'blocks.0.ls1.gamma',
        'blocks.0.attn.qkv.weight_v',
        'llama.layers.0.attention.wq.lora_A',
        'llama.layers.1.ffn_norm.weight',
    ],
)
def test_unknown_keys_are_listed(key, layers, llm, tmp_path):
    state = r.llama_state([layers[-1]])
    state[key] = torch.zeros(3)
    src = r.write_released(tmp_path / 'src.pth', state)
    with pytest.raises(CheckpointError) as e:
        convert(src, tmp_path / 'dst.pth', '--llm', llm)
    assert key in str(e.value) and 'Fix:' in str(e.value)
    assert not (tmp_path / 'dst.pth').exists()


@pytest.mark.parametrize(
    'key,named',
    [
        ('norm.weight', 'neck.norm.weight'),
        ('llama_dim_mapper2.weight', 'neck.mapper_out.weight'),
        ('llama.layers.0.attention.wo.weight', 'llama.layers.0.attention.wo.weight'),
    ],
)
def test_missing_keys_are_listed(key, named, layers, llm, tmp_path):
    state = r.llama_state([layers[-1]])
    del state[key]
    src = r.write_released(tmp_path / 'src.pth', state)
    with pytest.raises(CheckpointError, match=named):
        convert(src, tmp_path / 'dst.pth', '--llm', llm)


def test_other_llm(layers, llm, tmp_path):
    other = r.write_meta(tmp_path / 'other', [r.llama_layer() for _ in range(3)])
    state = r.llama_state([layers[-1]])
    src = r.write_released(tmp_path / 'src.pth', state)
    with pytest.raises(CheckpointError) as e:
        convert(src, tmp_path / 'dst.pth', '--llm', other)
    message = str(e.value)
    assert 'llama.layers.0.' in message and 'largest difference' in message
    assert '9 of 9 tensors' in message
    assert f"No layer of '{other}'" in message


def test_other_width(layers, llm, tmp_path, monkeypatch):
    monkeypatch.setattr(r, 'DIM', 16)
    other = r.write_meta(tmp_path / 'other', [r.llama_layer()])
    monkeypatch.undo()
    src = r.write_released(tmp_path / 'src.pth', r.llama_state([layers[-1]]))
    with pytest.raises(CheckpointError, match=r'shape is \[.*expected \['):
        convert(src, tmp_path / 'dst.pth', '--llm', other)


def test_wrong_layer_is_named(layers, llm, tmp_path):
    src = r.write_released(tmp_path / 'src.pth', r.llama_state([layers[1]]))
    with pytest.raises(CheckpointError, match='Fix: --layer 1 '):
        convert(src, tmp_path / 'dst.pth', '--llm', llm)
    with pytest.raises(UserError, match='7'):
        convert(src, tmp_path / 'dst.pth', '--llm', llm, '--layer', 7)


def test_one_changed_tensor(layers, llm, tmp_path):
    """One number of one tensor, and q in another row order, are noticed."""
    name = 'llama.layers.0.feed_forward.w3.weight'
    state = r.llama_state([layers[-1]])
    state[name][3, 4] += 0.25
    src = r.write_released(tmp_path / 'src.pth', state)
    with pytest.raises(CheckpointError) as e:
        convert(src, tmp_path / 'dst.pth', '--llm', llm)
    assert name in str(e.value) and '0.25' in str(e.value)
    assert '1 of 9' in str(e.value) and 'is the same' in str(e.value)

    state = r.llama_state([layers[-1]])
    name = 'llama.layers.0.attention.wq.weight'
    state[name] = state[name].flip(0)
    src = r.write_released(tmp_path / 'src.pth', state)
    with pytest.raises(CheckpointError, match='wq'):
        convert(src, tmp_path / 'dst.pth', '--llm', llm)


def test_final_gain_is_refused(layers, llm, tmp_path):
    state = r.llama_state([layers[-1]])
    state['llama.norm.weight'][2] = 1.5
    src = r.write_released(tmp_path / 'src.pth', state)
    with pytest.raises(CheckpointError, match='norm.weight.*1.5'):
        convert(src, tmp_path / 'dst.pth', '--llm', llm)


def test_llm_where_none_belongs_and_none_where_one_does(layers, llm, tmp_path):
    src = r.write_released(tmp_path / 'src.pth', r.llama_state([layers[-1]]))
    with pytest.raises(UserError, match='--llm'):
        convert(src, tmp_path / 'dst.pth')
    src = r.write_released(tmp_path / 'src.pth', r.vit_state())
    with pytest.raises(UserError, match='leave out --llm'):
        convert(src, tmp_path / 'dst.pth', '--llm', llm)


def test_another_family(layers, checkpoints, tmp_path):
    src = r.write_released(tmp_path / 'src.pth', r.llama_state([layers[-1]]))
    with pytest.raises(UserError, match="LLaMA's names"):
        convert(src, tmp_path / 'dst.pth', '--llm', checkpoints('gpt2'))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(CheckpointError, match='does not exist'):
        convert(tmp_path / 'none.pth', tmp_path / 'dst.pth')
    src = Path(r.write_released(tmp_path / 'src.pth', r.vit_state()))
    cut = tmp_path / 'cut.pth'
    cut.write_bytes(src.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match='damaged'):
        convert(cut, tmp_path / 'dst.pth')
    unsafe = r.write_released(tmp_path / 'unsafe.pth', r.vit_state(), run=Path('x'))
    with pytest.raises(CheckpointError, match="'pathlib.*could run code"):
        convert(unsafe, tmp_path / 'dst.pth')
    with pytest.raises(UserError, match='same file'):
        convert(src, src)


def test_tool_prints_one_message(tmp_path, monkeypatch, capsys):
    """As a user starts it: exit code 2 and no traceback."""
    tool = str(ROOT / 'tools/image/convert_checkpoint.py')
    monkeypatch.setattr(sys, 'argv', [tool, str(tmp_path / 'none.pth'), str(tmp_path / 'out.pth')])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(tool, run_name='__main__')
    assert ended.value.code == 2
    assert 'does not exist' in capsys.readouterr().err


def test_names_of_the_shipped_configs(tmp_path, layers, llm):
    """Converted names are exactly those of the paper's configs."""
    for name, state in (
        ('vit-t_in1k', r.vit_state()),
        ('vit-t_llama_in1k', r.llama_state([layers[-1]])),
    ):
        cfg = Config.fromfile(ROOT / f'configs/lm4ve/{name}.py').model
        args = []
        if 'llama' in name:
            cfg.neck.block.checkpoint = llm
            args = ['--llm', llm]
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(cfg)
        src = r.write_released(tmp_path / 'src.pth', state)
        convert(src, tmp_path / 'dst.pth', *args)
        names = set(torch.load(tmp_path / 'dst.pth', weights_only=True)['state_dict'])
        deeper = tuple(f'backbone.layers.{i}.' for i in range(r.DEPTH, 12))
        assert names == {k for k in model.state_dict() if not k.startswith(deeper)}
