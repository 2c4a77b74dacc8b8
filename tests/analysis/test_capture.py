"""What hooks see of each task's model, and measures of it, against plain computations."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lm4ve.analysis import analyse, frequency, magnitude, normalize
from lm4ve.analysis.attention import encoder_attentions, llm_attention_row
from lm4ve.analysis.points import necks_of
from lm4ve.blocks import LLMBlock
from lm4ve.errors import UserError
from tests.helpers.models import BLOCK, TASKS, D, build, call_of

PLACES = dict(image=(1, (4, 6)), video=(0, (2, 4, 4)), pointcloud=(1, (6,)))


@pytest.mark.parametrize('task', TASKS)
def test_points_are_the_inputs_and_outputs_of_neck_parts(task):
    model, data = build(task)
    seen = analyse(model, data)
    assert seen.kind == task
    assert list(seen.points) == ['encoder', 'mapped', 'block', 'after']
    _, neck = necks_of(model)[0]
    x, kwargs = call_of(model, data, neck)
    if isinstance(x, (tuple, list)):
        x = x[-1]
    if x.dim() > 3:
        x = x.flatten(2).transpose(1, 2)
    with torch.no_grad():
        mapped = F.linear(x, neck.mapper_in.weight)
        block = neck.block(mapped, padding_mask=kwargs.get('padding_mask'))
        after = F.linear(block, neck.mapper_out.weight)
    prefix = seen.points['encoder'].layout.prefix
    if task != 'motion':
        assert (prefix, seen.points['encoder'].layout.grid) == PLACES[task]
    expected_at = dict(encoder=x, mapped=mapped, block=block, after=after)
    for label, expected in expected_at.items():
        found = seen.points[label].tokens
        torch.testing.assert_close(found, expected[:, prefix:], rtol=1e-4, atol=1e-5)
    assert seen.points['block'].tokens.shape[-1] == D
    assert seen.views == (2 if task == 'video' else 1)


def hooks_of(model):
    """Return the keys of the forward hooks of each module."""
    return [
        [*module._forward_hooks, *module._forward_pre_hooks]
        for module in model.modules()
    ]


@pytest.mark.parametrize('task', TASKS)
def test_capture_changes_neither_predictions_nor_modes(task):
    model, data = build(task)
    model.train()
    model.get_submodule('neck.norm').eval()
    modes = [m.training for m in model.modules()]
    hooks = hooks_of(model)
    seen = analyse(model, data)
    assert [m.training for m in model.modules()] == modes
    assert hooks_of(model) == hooks
    with torch.no_grad():
        plain = model.eval().test_step(data)
    names = dict(motion='trajectories', pointcloud='pred_scores')
    name = names.get(task, 'pred_score')
    # Trajectories lie in a city, tens of meters from its origin.
    slack = 1e-3 if task == 'motion' else 1e-5
    for seen_output, plain_output in zip(seen.outputs, plain, strict=True):
        prediction = torch.as_tensor(seen_output.get(name))
        expected = torch.as_tensor(plain_output.get(name))
        torch.testing.assert_close(prediction, expected, rtol=1e-4, atol=slack)


def test_all_views_are_captured():
    model, data = build('video')
    whole = analyse(model, data)
    model.test_cfg = dict(max_testing_views=1)
    parts = analyse(model, data)
    assert model.test_cfg == dict(max_testing_views=1)
    assert parts.views == 2
    torch.testing.assert_close(
        parts.points['after'].tokens, whole.points['after'].tokens
    )


def test_any_module_can_be_named():
    model, data = build('image')
    points = dict(
        patches='backbone.patch_embed',
        inside='neck.block.layers.0.o_proj',
        norm='neck.block.layers.1.mlp_norm:input',
    )
    seen = analyse(model, data, points)
    assert seen.points['patches'].layout.prefix == 0
    assert seen.points['inside'].tokens.shape == (2, 24, D)
    assert seen.points['norm'].tokens.shape == (2, 24, D)


UNFIT_MODULES = [
    ('neck.blok', "'neck.blok' is no module of the model. Did you mean 'neck.block'"),
    ('neck', 'gives no tensor of tokens'),  # one vector an image
    ('backbone.layers', 'did not run as a module'),
]


@pytest.mark.parametrize('name, message', UNFIT_MODULES)
def test_unfit_modules_are_refused(name, message):
    model, data = build('image')
    with pytest.raises(UserError, match=message):
        analyse(model, data, dict(x=name))


# ------------------------------------------------------------------ attention
def softmax_row(q, k, row):
    """``[N, H, d]`` each: the attention of one row, ``[H, N]``."""
    scores = torch.einsum('hd,nhd->hn', q[row], k) / q.shape[-1] ** 0.5
    return scores.softmax(1)


@torch.no_grad()
def test_encoder_attention_is_the_class_tokens_row():
    model, data = build('image')
    got = analyse(model, data).attention['encoder']
    attention = model.backbone.layers[-1].attn
    x = call_of(model, data, attention)[0][1]
    q, k, _ = attention.qkv(x).view(25, 3, 2, 8).unbind(1)
    assert got.row == 'class token'
    assert got.name == 'backbone.layers.1.attn'
    torch.testing.assert_close(got.weights[1], softmax_row(q, k, 0)[:, 1:])


@torch.no_grad()
def test_videomaes_attention_is_the_mean_over_rows():
    model, data = build('video')
    attention = model.backbone.blocks[-1].attn
    for p in (attention.q_bias, attention.v_bias):
        p.normal_()
    got = analyse(model, data).attention['encoder']
    x = call_of(model, data, attention)[0][3]
    q, k, _ = attention.qkv(x).view(32, 3, 2, 8).unbind(1)
    q = q + attention.q_bias.view(2, 8)
    expected = torch.stack([softmax_row(q, k, i) for i in range(32)]).mean(0)
    assert got.row == 'mean over tokens'
    torch.testing.assert_close(got.weights[3], expected)


@pytest.mark.parametrize('name', ['ViTEVA02', 'XCiT', 'DaViT', 'MViT'])
def test_attention_with_other_scores_is_not_read(name):
    # They rotate queries, look at channels or pool: the product of q and k is not
    # theirs.
    fields = dict(patch_size=16, embed_dims=64, depth=1) if name == 'XCiT' else {}
    model = pytest.importorskip('mmpretrain').registry.MODELS.build(
        dict(type=name, **fields)
    )
    rotated = pytest.importorskip('timm').models.eva.EvaAttention(
        8, 2, scale_norm=False
    )
    assert not encoder_attentions(torch.nn.ModuleList([model, rotated]))


@torch.no_grad()
def test_block_attention_has_grouped_keys():
    model, data = build('image')
    seen = analyse(model, data)
    layer = model.neck.block.layers[-1]
    with model.neck.observe():
        normed = layer.attention_norm(call_of(model, data, layer)[0][0])
    q = layer.q_proj(normed).view(25, 4, 6)
    k = layer.k_proj(normed).view(25, 2, 6).repeat_interleave(2, dim=1)
    torch.testing.assert_close(
        seen.attention['block'].weights[0], softmax_row(q, k, 0)[:, 1:]
    )


def test_scene_attention_is_the_focal_agents_row():
    model, data = build('motion')
    seen = analyse(model, data)
    for attention in seen.attention.values():
        assert attention.row == 'focal agent'
        weights = attention.weights
        padding = attention.layout.padding_mask[:, None].expand_as(weights)
        assert padding.any()
        assert (weights[padding] == 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))


def numpy_frequency(x: np.ndarray, wrap: bool) -> np.ndarray:
    """Return the frequency of tokens ``[N, C]``, by a matrix in place of the FFT."""
    channels = x.shape[1]
    n = np.arange(channels)
    transform = np.exp(-2j * np.pi * np.outer(n, n) / channels)
    spectrum = x.astype(np.float64) @ transform
    # The sums that are real but for rounding: their angle is 0 or pi.
    spectrum[:, 0] = spectrum[:, 0].real
    if channels % 2 == 0:
        spectrum[:, channels // 2] = spectrum[:, channels // 2].real
    angles = np.angle(spectrum)
    if wrap:
        mean = np.angle(np.exp(1j * angles).mean(0))
        difference = np.angle(np.exp(1j * (angles - mean)))
    else:
        difference = angles - angles.mean(0)
    return np.linalg.norm(difference, axis=1)


@pytest.mark.parametrize('channels', [7, 16])
def test_measures_equal_numpy(channels):
    x = torch.randn(3, 11, channels)
    expected = np.linalg.norm(x.double() - x.double().mean(1, keepdim=True), axis=2)
    np.testing.assert_allclose(magnitude(x).numpy(), expected, rtol=0, atol=1e-6)
    for wrap in (True, False):
        expected = [numpy_frequency(s, wrap) for s in x.numpy()]
        np.testing.assert_allclose(
            frequency(x, wrap=wrap).numpy(), expected, rtol=0, atol=1e-6
        )


def test_padding_does_not_count():
    x = torch.randn(2, 9, 6)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[1, 5:] = True
    changed = torch.where(mask[..., None], torch.tensor(float('nan')), x)
    for measure in (magnitude, frequency):
        got = measure(changed, mask)
        torch.testing.assert_close(got[0], measure(x[:1])[0])
        torch.testing.assert_close(got[1, :5], measure(x[1:, :5])[0])
        assert (got[1, 5:] == 0).all()


def test_normalize_spans_0_to_1_for_each_sample():
    values = torch.tensor([[2.0, 4.0, 3.0], [7.0, 7.0, 7.0], [-1.0, 5.0, 99.0]])
    mask = torch.tensor([[False] * 3, [False] * 3, [False, False, True]])
    expected = torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(normalize(values, mask), expected)


def test_values_that_are_not_finite_are_refused():
    broken = torch.randn(2, 4, 5)
    broken[1, 2, 3] = float('inf')
    for measure in (magnitude, frequency):
        with pytest.raises(UserError, match='not finite'):
            measure(broken)


def test_attention_behind_a_soft_mask_is_what_the_layer_uses():
    block = LLMBlock(arch=BLOCK['arch'], causal=dict(soft=0.5)).eval()
    layer = block.layers[0]
    calls = []
    layer.register_forward_pre_hook(lambda _, args: calls.append(args))
    block(torch.randn(2, 5, 24))
    ((x, mask, *_),) = calls
    mean = llm_attention_row(layer, x, mask, None, None)
    assert (mean[0, 0] > 0).all()
    row = llm_attention_row(layer, x, mask, None, 3)
    assert (row[0, 0] > 0).tolist() == [True, True, True, True, False]


# Heads of which two share keys and two others do not, and such of wide norms.
@pytest.mark.parametrize('family', ['llama-gqa', 'qwen3'])
@pytest.mark.parametrize('heads', [[0, 1, 3], [2]], ids=str)
def test_attention_of_kept_heads_is_theirs_in_the_whole_block(
    family, heads, checkpoints
):
    x = torch.randn(2, 5, 32)
    whole, kept = (
        LLMBlock(checkpoints(family), heads=own).layers[0] for own in (None, heads)
    )
    expected = llm_attention_row(whole, x, None, None, 2)[:, heads]
    found = llm_attention_row(kept, x, None, None, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
