"""VideoMAE's and the paper's video checkpoints: names, and the same logits."""

import pytest
import torch

pytest.importorskip('mmaction')
from mmengine.registry import MODELS  # noqa: E402
from mmengine.runner.checkpoint import _load_checkpoint_to_model  # noqa: E402

from lm4ve.errors import CheckpointError, UserError  # noqa: E402
from tests.helpers.tools import run_tool_here  # noqa: E402
from tests.tasks.video import released as r  # noqa: E402

SIZES = ('--img-size', r.SIZE, '--num-frames', r.FRAMES)


def build(llm=None, layers=(-1,)):
    backbone = dict(type='VisionTransformer', img_size=r.SIZE, patch_size=r.PATCH, depth=r.DEPTH)
    backbone.update(embed_dims=r.WIDTH, num_heads=r.HEADS, num_frames=r.FRAMES)
    head = dict(type='TimeSformerHead', num_classes=r.CLASSES, in_channels=r.WIDTH)
    cfg = dict(type='mmaction.Recognizer3D', backbone=backbone, cls_head=head)
    if llm is not None:
        backbone['return_feat_map'] = True
        block = dict(type='LLMBlock', checkpoint=llm, layers=layers)
        cfg['neck'] = dict(type='LLMBlockNeck', in_channels=r.WIDTH, block=block)
        cfg['neck']['out_type'] = 'avg_featmap'
    model = MODELS.build(cfg)
    model.init_weights()
    return model.eval()


def convert(state, tmp_path, *args) -> dict:
    torch.save(dict(model=state), tmp_path / 'src.pth')
    run_tool_here(
        'convert_checkpoint.py', 'video', tmp_path / 'src.pth', tmp_path / 'dst.pth', *SIZES, *args
    )
    return torch.load(tmp_path / 'dst.pth', weights_only=True)['state_dict']


def logits(model, clips):
    with torch.no_grad():
        feats, arguments = model.extract_feat(clips[:, None], test_mode=True)
        return model.cls_head(feats, **arguments)


def assert_same_logits(model, state) -> None:
    clips = torch.randn(2, 3, r.FRAMES, r.SIZE, r.SIZE)
    torch.testing.assert_close(logits(model, clips), r.logits(state, clips), atol=1e-5, rtol=1e-5)


@pytest.fixture
def llm(tmp_path):
    layers = [r.llama_layer() for _ in range(3)]
    return r.write_meta(tmp_path / 'llama', layers), layers


def test_pretrained_loads_all_but_the_head(tmp_path):
    state = r.pretrained_state()
    model = build()
    found = model.load_state_dict(convert(state, tmp_path), strict=False)
    assert sorted(found.missing_keys) == ['cls_head.fc_cls.bias', 'cls_head.fc_cls.weight']
    assert not found.unexpected_keys
    expected = {k.replace('encoder.', ''): v for k, v in state.items() if k.startswith('encoder.')}
    # Fine-tuning starts with a fresh final norm.
    expected |= {'fc_norm.weight': torch.ones(r.WIDTH), 'fc_norm.bias': torch.zeros(r.WIDTH)}
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
    """As it must when a fine-tuned VideoMAE is the start of one with a block."""
    state, model = r.finetuned_state(), build(llm[0])
    converted = convert(state, tmp_path)
    # By torch's loading and by MMEngine's own, which is another function.
    for load in (model.load_state_dict, lambda s, **_: _load_checkpoint_to_model(model, s)):
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
        (CheckpointError, r'layers \[0\].*--layer', state, ('--llm', folder, '--layer', 0)),
        (CheckpointError, 'temporal', r.finetuned_state() | {'temporal': torch.ones(1)}, ()),
        (UserError, 'multiples', r.finetuned_state(), ('--num-frames', 7)),
    ]
    for error, match, content, args in cases:
        with pytest.raises(error, match=match):
            convert(content, tmp_path, *args)
