"""Released checkpoints give their logits; mmpretrain's encoders run without their final norm."""

from functools import partial

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint

from lm4ve.errors import CheckpointError, UserError
from tests.helpers import models
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.image import released as r
from tests.helpers.tools import convert_here

pytest.importorskip('mmpretrain')

VIT, RAW = (
    dict(type='mmpretrain.VisionTransformer'),
    dict(out_type='raw', final_norm=False),
)


def build(llm=None, layers=(-1,)):
    """Our model of the released one's shape, with other random weights."""
    arch = dict(embed_dims=r.WIDTH, num_layers=r.DEPTH, num_heads=r.HEADS)
    arch['feedforward_channels'] = 4 * r.WIDTH
    backbone = dict(VIT, arch=arch, img_size=r.SIZE, patch_size=r.PATCH)
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=r.CLASSES)
    cfg = dict(backbone=backbone, head=dict(head, in_channels=r.WIDTH))
    if llm is not None:
        backbone.update(RAW)
        cfg['neck'] = models.neck(r.WIDTH, out_type='cls_token')
        cfg['neck']['block'] = dict(type='LLMBlock', checkpoint=llm, layers=layers)
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', **cfg))
    model.init_weights()
    return model.eval()


def assert_same_logits(model, converted, state) -> None:
    model.load_state_dict(converted, strict=True)
    images = torch.randn(3, 3, r.SIZE, r.SIZE)
    with torch.no_grad():
        ours = model(images)
    assert_equal_but_for_rounding(ours, r.logits(state, images), model)


@pytest.fixture
def llm(tmp_path):
    return r.write_llm(tmp_path / 'llama')


@pytest.fixture
def convert(tmp_path):
    """Return a function that converts a checkpoint: ``convert(content, *options)``."""
    return partial(convert_here, 'image', tmp_path)


# -------------------------------------------------------------------- parity
def test_plain_vit_gives_the_released_logits(convert):
    state, average = r.vit_state(), r.vit_state()
    assert_same_logits(build(), convert(r.released(state)), state)
    averaged = convert(r.released(state, model_ema=average), '--ema')
    assert_same_logits(build(), averaged, average)
    averaged = convert(dict(model_ema=average), '--ema')
    assert_same_logits(build(), averaged, average)
    # Before PyTorch 1.6 files were no zip, and cannot be memory-mapped.
    wrapped = dict(state_dict={f'module.{k}': v for k, v in state.items()})
    converted = convert(wrapped, _use_new_zipfile_serialization=False)
    assert_same_logits(build(), converted, state)


@pytest.mark.parametrize(
    'chosen, half', [((-1,), True), ((1,), False), ((-2, -1), False)]
)
def test_vit_llama_gives_the_released_logits(chosen, half, llm, convert, capsys):
    llm, layers = llm
    state = r.llama_state([layers[i] for i in chosen])
    if half:
        state = {k: v.half() for k, v in state.items()}
    # Buffers that other versions of LLaMA's code keep, without use on image tokens.
    at = 'llama.layers.0.attention'
    unused = (f'{at}.inner_attention.rope.freqs', f'{at}.cache_k', 'llama.freqs_cis')
    content = r.released(state | {name: torch.zeros(4) for name in unused})
    stored = convert(content, '--llm', llm, '--layer', *chosen)
    assert_same_logits(
        build(llm, chosen), stored, {k: v.float() for k, v in state.items()}
    )
    assert 'left out (' in capsys.readouterr().out
    # The block is not stored: no tensor has the language model's hidden width.
    assert not any(r.HIDDEN in t.shape for t in stored.values())


def averaged(state, steps=30, decay=0.99996):
    """Return an average as timm keeps it: other trained tensors, a block that has drifted.

    timm averages frozen tensors, too. Each step rounds, so they drift from what they are
    averages of.
    """
    average = {}
    for name, tensor in state.items():
        start = tensor if name.startswith('llama.') else torch.randn_like(tensor)
        average[name] = start.clone()
        for _ in range(steps):
            average[name] = decay * average[name] + (1 - decay) * tensor
    return average


def test_an_average_is_converted_although_its_block_has_drifted(llm, convert):
    llm, layers = llm
    state = r.llama_state([layers[-1]])
    average = averaged(state)
    block = [name for name in state if name.startswith('llama.')]
    assert any(not torch.equal(average[name], state[name]) for name in block)

    stored = convert(r.released(state, model_ema=average), '--llm', llm, '--ema')
    # The trained tensors are the average's, to the bit, and the block is the model's.
    exact = average | {name: state[name] for name in block}
    expected = convert(r.released(exact), '--llm', llm)
    assert stored.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(stored[name], tensor), name
    assert_same_logits(build(llm), stored, exact)
    # Without the flag the weights are the model's.
    raw = convert(r.released(state, model_ema=average), '--llm', llm)
    assert not torch.equal(
        raw['neck.mapper_in.weight'], stored['neck.mapper_in.weight']
    )


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_the_block_of_an_average_is_that_of_the_model(prefix, llm, convert):
    llm, layers = llm
    state = r.llama_state([layers[-1]])
    other = r.llama_state([layers[0]])
    block = [name for name in state if name.startswith('llama.layers.')]
    key = 'llama.layers.0.feed_forward.w3.weight'
    average = averaged(state)
    without = {name: average[name] for name in average if name not in block}
    of_another = average | {name: other[name] for name in block}
    cases = [
        (of_another, other, 'differs from layers'),
        (average, other, 'model_ema.* no average of'),
        (of_another, state, 'model_ema.* no average of'),
        (average | {key: average[key] * torch.nan}, state, f'{key}.*model_ema'),
        (average | {key: average[key][:1]}, state, f'{key}.*model_ema'),
        (without, state, 'model_ema lacks.*llama.layers'),
        (average | {key: average[key] * 1.02}, state, f'{key}.*model_ema'),
        (average, state | {'llama.extra': torch.zeros(1)}, 'model_ema lacks.*extra'),
        (average | {'llama.extra': torch.zeros(1)}, state, 'unknown.*extra'),
    ]
    for mean, model, message in cases:
        renamed = {f'{prefix}{name}': tensor for name, tensor in model.items()}
        with pytest.raises(UserError, match=message):
            convert(r.released(renamed, model_ema=mean), '--llm', llm, '--ema')


#: A weight, a change of it in the state, and what the message has (None: the weight's
#: name).
UNLIKE = [
    (
        'llama.layers.1.ffn_norm.weight',
        lambda s, k: s.update({k: torch.zeros(3)}),
        None,
    ),
    ('llama_dim_mapper2.weight', dict.pop, 'neck.mapper_out.weight'),
    ('llama.layers.0.attention.wo.weight', dict.pop, None),
    (
        'llama.layers.0.feed_forward.w3.weight',
        lambda s, k: s[k][3, 4].add_(0.25),
        '0.25',
    ),
    ('llama.layers.0.attention.wq.weight', lambda s, k: s[k].copy_(s[k].flip(0)), None),
    ('llama.norm.weight', lambda s, k: s[k][2].fill_(1.5), None),
    (
        'llama.layers.0.attention.wo.weight',
        lambda s, k: s[k][3, 4].fill_(float('nan')),
        'wo.weight.*difference is inf',
    ),
    (
        'llama.layers.0.attention.wo.weight',
        lambda s, k: s[k][3, 4].fill_(float('inf')),
        'wo.weight.*difference is inf',
    ),
]


@pytest.mark.parametrize('key, change, message', UNLIKE)
def test_states_unlike_the_release_are_refused(key, change, message, llm, convert):
    llm, layers = llm
    state = r.llama_state([layers[-1]])
    change(state, key)
    with pytest.raises(CheckpointError, match=message or key):
        convert(r.released(state), '--llm', llm)


def test_block_of_another_language_model_is_refused(
    llm, checkpoints, tmp_path, convert
):
    llm, layers = llm
    other, _ = r.write_llm(tmp_path / 'other', seed=1)
    state = r.llama_state([layers[1]])
    cases = [
        (
            CheckpointError,
            'llama.layers.0.*largest difference',
            state,
            ('--llm', other),
        ),
        (CheckpointError, r'layers \[2\].*--layer', state, ('--llm', llm)),
        (UserError, '', state, ('--llm', checkpoints('gpt2'))),
        (UserError, '--llm', state, ()),
        (UserError, '--llm', r.vit_state(), ('--llm', llm)),
    ]
    for error, message, content, options in cases:
        with pytest.raises(error, match=message):
            convert(r.released(content), *options)
    assert not (tmp_path / 'new/dst.pth').exists()


@pytest.mark.parametrize('way', ['load', 'backbone'])
def test_a_plain_encoders_final_norm_becomes_the_necks(way, tmp_path):
    plain = models.image(block=False)[0]
    plain.backbone.ln1.weight.data.fill_(3)
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    model = models.image()[0]
    if way == 'load':
        load_checkpoint(model, str(tmp_path / 'plain.pth'))
    else:
        init = dict(
            type='Pretrained',
            checkpoint=str(tmp_path / 'plain.pth'),
            prefix='backbone.',
        )
        model.backbone.init_cfg = init
        model.init_weights()
    assert model.neck.norm.weight.eq(3).all()
    assert torch.equal(
        model.backbone.layers[0].ln1.bias, plain.backbone.layers[0].ln1.bias
    )


def test_a_host_without_class_token_is_refused():
    backbone = dict(VIT, **RAW, arch='deit-tiny', with_cls_token=False)
    neck = models.neck(192, out_type='cls_token')
    with pytest.raises(UserError, match='class token'):
        MODELS.build(
            dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck)
        )
