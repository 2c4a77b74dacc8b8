"""A release computes the same without its language model; what cannot be exported is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.language_model import LanguageModel
from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError, UserError
from lm4ve.release import exporting, formats
from lm4ve.release.portable_config import portable_arch
from lm4ve.runner.config import check_config, read_config
from tests.helpers.families import FAMILIES, write_huggingface
from tests.helpers.tasks import ROOT
from tests.helpers.tiny_runs import PLACE, write_runs
from tests.helpers.tools import run_lm4ve, run_tool_here

pytest.importorskip('mmpretrain')

VIT = dict(
    type='VisionTransformer',
    img_size=16,
    patch_size=8,
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    init_cfg=dict(type='Pretrained', checkpoint='/nowhere/vit.pth'),
)
RESNET = dict(
    type='ResNet', depth=18, stem_channels=4, base_channels=2, norm_cfg=dict(type='BN')
)
#: Where a block can be.
PLACES = ('neck', 'necks', 'insert')


def write_config(path: Path, checkpoint: str, place: str = 'neck', **block) -> Path:
    """Write the config of a small classifier with a block at a place; return its file."""
    pipeline = [dict(type='Resize', scale=(16, 16)), dict(type='PackInputs')]
    dataset = dict(type='lm4ve.DigitsDataset', pipeline=pipeline)
    llm_block = dict(type='LLMBlock', checkpoint=checkpoint, **block)
    cfg = Config(
        dict(
            custom_imports=dict(imports=['lm4ve']),
            default_scope='mmpretrain',
            work_dir='/nowhere',
            load_from='/nowhere/start.pth',
            data_preprocessor=dict(num_classes=5, mean=[1.0] * 3, std=[2.0] * 3),
            test_dataloader=dict(dataset=dataset),
            llm_block=llm_block,
            model=model_config(place, llm_block),
        )
    )
    cfg.dump(path)
    return path


def model_config(place: str, block: dict) -> dict:
    """Return the config of a classifier with a block at one of :data:`PLACES`."""
    neck = dict(type='LLMBlockNeck', in_channels=16, block=block)
    head = dict(
        type='VisionTransformerClsHead',
        num_classes=5,
        in_channels=16,
        loss=dict(type='CrossEntropyLoss'),
    )
    if place == 'necks':
        necks = [neck, dict(type='GlobalAveragePooling')]
        head = dict(head, type='LinearClsHead')
        return dict(type='ImageClassifier', backbone=RESNET, neck=necks, head=head)
    if place == 'insert':
        insert = dict(type='LLMBlockInsert', after='layers.0', neck=neck, backbone=VIT)
        return dict(type='ImageClassifier', backbone=insert, neck=None, head=head)
    backbone = dict(VIT, out_type='raw', final_norm=False)
    neck = dict(neck, out_type='cls_token')
    return dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)


def build(path, seed: int = 0, options=()):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(options))
    cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    for module in model.modules():
        # Not init_weights: the encoder names pre-trained weights.
        if hasattr(module, 'reset_parameters'):
            module.reset_parameters()
    return model.eval()


def make(folder: Path, checkpoint: str, *flags, place: str = 'neck', **block):
    """Write config and checkpoint, release them; return model and folder."""
    config = write_config(folder / 'small.py', checkpoint, place, **block)
    model = build(config)
    meta = dict(epoch=3, dataset_meta=dict(classes=list('abcde')), cfg='x')
    other = dict(ema_state_dict=model.state_dict(), optimizer=dict(state={}))
    torch.save(
        dict(other, state_dict=model.state_dict(), meta=meta), folder / 'epoch_3.pth'
    )
    run_tool_here(
        'make_release.py', config, folder / 'epoch_3.pth', folder / 'out', *flags
    )
    return model, folder / 'out'


def outputs(model):
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(images)


def assert_same(model, out: Path):
    """The release gives the same logits, bit by bit; returns its model."""
    released = build(out / 'small.py', seed=7)
    assert not torch.equal(outputs(released), outputs(model))
    load_checkpoint(released, str(out / 'small.pth'), map_location='cpu', strict=True)
    assert torch.equal(outputs(released), outputs(model))
    return released


#: Options of the block, families and places, each of which a release has to keep.
CASES = {
    **{f'in {place}': dict(family='llama-gqa', place=place) for place in PLACES},
    'two layers': dict(layers=(0, -1)),
    'causal': dict(rotary=True, causal=True),
    'bfloat16': dict(dtype='bfloat16', final_norm=False),
    'float16': dict(dtype='float16'),
    **{f'trained {kind}': dict(trainable=kind) for kind in ('norms', 'all')},
    'random': dict(pretrained=False, seed=3),
    # Fused and transposed projections, norms after, nested rotary fields.
    **{name: dict(family=name, layers=(0, 1)) for name in ('gpt2', 'opt', 'bert')},
    'gemma3': dict(family='gemma3_text', layers=(0, 1), rotary=True),
}


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
@pytest.mark.bitwise
def test_a_release_computes_the_same_without_the_model(case, tmp_path, capsys):
    block = dict(case)
    llm = write_huggingface(tmp_path / 'llm', block.pop('family', 'llama'))
    place, file = block.pop('place', 'neck'), llm / 'config.json'
    # As old files have it, and nothing reads it any more.
    file.write_text(
        file.read_text().replace('{', '{"position_embedding_type": "absolute",', 1)
    )
    model, out = make(tmp_path, str(llm), place=place, **block)
    printed = capsys.readouterr().out
    assert f'{(out / "small.pth").stat().st_size / 1e6:.1f} MB' in printed
    check_config(read_config(out / 'small.py', set_scope=False))
    shutil.rmtree(llm)
    released = assert_same(model, out)
    if place == 'neck':
        cfg = Config.fromfile(out / 'small.py').model.neck.block
        kept = {k: v for k, v in block.items() if k not in ('pretrained', 'layers')}
        assert {k: cfg[k] for k in kept} == kept
        assert cfg.layers == ((0, 1) if 'layers' in block else (1,))
        assert released.neck.block.layer_indices == list(cfg.layers)
    run_tool_here(
        'make_release.py', out / 'small.py', out / 'small.pth', tmp_path / 'second'
    )
    assert_same(model, tmp_path / 'second')


@pytest.mark.parametrize('variant', FAMILIES)
def test_architecture_survives_a_config_file(variant):
    config = LanguageModel(None, FAMILIES[variant]).config
    # What a config of the hub may carry beside.
    config.auto_map = {'AutoConfig': 'remote.py'}
    config.torch_dtype = torch.float16
    arch = portable_arch(config)
    assert not {'auto_map', 'torch_dtype', 'dtype', '_name_or_path'} & set(arch)
    text = Config(dict(arch=arch)).pretty_text
    read = Config.fromstring(text, '.py').arch
    again = LanguageModel(None, read)
    assert portable_arch(again.config) == arch
    assert again.config.model_type == config.model_type
    # Of granite_swa, whose model has several rotary modules, no tables can be had.
    has_rotary = hasattr(again.skeleton, 'rotary_emb') and variant != 'granite_swa'
    LLMBlock(arch=read, rotary=has_rotary)


def test_only_what_a_release_needs(tmp_path):
    llm = write_huggingface(tmp_path / 'secret-place', 'llama')
    model, out = make(tmp_path, str(llm))
    assert sorted(p.name for p in out.iterdir()) == ['small.pth', 'small.py']
    content = torch.load(out / 'small.pth', weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    text = (out / 'small.py').read_text()
    assert content['meta']['cfg'] == text
    assert content['meta']['dataset_meta'] == dict(classes=list('abcde'))
    assert content['meta']['epoch'] == 3
    for place in ('nowhere', str(tmp_path), 'secret-place'):
        assert place not in text
    record = content['state_dict'][f'neck.block.{KEY}']
    assert str(tmp_path) not in bytes(record.tolist()).decode()
    # The original is as it was.
    assert 'secret-place' in (tmp_path / 'small.py').read_text()


@pytest.mark.bitwise
def test_half_where_nothing_is_lost(tmp_path, capsys):
    """Published in 16 bits, used in fp32: stored in 16 bits, equal."""
    llm = write_huggingface(tmp_path / 'llm', 'llama', dtype=torch.bfloat16)
    model, out = make(tmp_path, str(llm), '--half')
    shutil.rmtree(llm)
    state = torch.load(out / 'small.pth', weights_only=True)['state_dict']
    frozen = [v for k, v in state.items() if '.embedded.' in k]
    assert frozen and all(v.dtype == torch.float16 for v in frozen)
    released = assert_same(model, out)
    assert released.neck.block.dtype == torch.float32
    assert 'stay in fp32' not in capsys.readouterr().out


@pytest.mark.parametrize('name', ['vit-t_llama_in1k', 'vit-s_llama-head_in1k'])
def test_shipped_configs(name, tmp_path):
    """Configs that inherit a host's recipe, with scopes inside, flatten too."""
    llm = write_huggingface(tmp_path / 'llm', 'llama')
    place = 'backbone.neck' if 'head' in name else 'neck'
    config = ROOT / f'configs/lm4ve/{name}.py'
    option = f'model.{place}.block.checkpoint'
    model = build(config, options={option: str(llm)})
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    files = config, tmp_path / 'a.pth', tmp_path / 'out'
    run_tool_here('make_release.py', *files, '--cfg-options', f'{option}={llm}')
    shutil.rmtree(llm)
    again = build(tmp_path / f'out/{name}.py')
    load_checkpoint(again, str(tmp_path / f'out/{name}.pth'), strict=True)
    frozen = frozen_tensors(model)
    frozen_again = frozen_tensors(again)
    assert frozen
    for tensor_name, tensor in frozen.items():
        assert torch.equal(tensor, frozen_again[tensor_name]), tensor_name


@pytest.mark.parametrize('name', ['small.py', 'small.pth'])
def test_a_release_overwrites_no_file(name, tmp_path):
    make(tmp_path, str(write_huggingface(tmp_path / 'llm', 'llama')))
    released = tmp_path / 'out' / name
    other = tmp_path / 'other' / name
    other.parent.mkdir()
    shutil.copy(released, other)
    files = (tmp_path / 'small.py', tmp_path / 'epoch_3.pth', other.parent)
    with pytest.raises(UserError, match='would overwrite'):
        run_tool_here('make_release.py', *files)
    assert other.read_bytes() == released.read_bytes()


CONFIG = f'{PLACE}/vit_frozen.py'
CHECKPOINT = f'{PLACE}/vit_frozen.pth'


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_runs(tmp_path, 'vit_frozen', 'vit_mlp')
    monkeypatch.chdir(tmp_path)
    Path('there.safetensors').write_text('somebody needs this')


WRONG = {
    'a file': (
        [CONFIG, CHECKPOINT, '--out', 'there.safetensors'],
        'exists. Fix: --overwrite',
    ),
    'another block': ([CONFIG, f'{PLACE}/vit_mlp.pth'], '_extra_state'),
    'a flag of another format': (
        [CONFIG, CHECKPOINT, '--with-block'],
        'for safetensors',
    ),
}


@pytest.mark.parametrize('words, message', WRONG.values(), ids=WRONG)
def test_a_mistake_is_told_before_anything_is_written(words, message, project):
    with pytest.raises((UserError, CheckpointError), match=message):
        run_lm4ve('export', words)
    assert not [p for p in Path().rglob('*') if p.suffix in ('.onnx', '.pt2')]
    assert Path('there.safetensors').read_text() == 'somebody needs this'


def test_a_file_that_differs_from_the_model_is_not_kept(project, monkeypatch):
    wrong = formats.load_torch_export

    def load(path):
        run = wrong(path)
        return lambda tensors: tuple(t + 1e-3 for t in run(tensors))

    monkeypatch.setitem(
        exporting._WRITERS, 'torch-export', (formats.write_torch_export, load)
    )
    words = [CONFIG, CHECKPOINT, '--format', 'torch-export', '--out', 'made/model.pt2']
    with pytest.raises(UserError, match='differs from the model by .* at a batch of 1'):
        run_lm4ve('export', words)
    assert not list(Path('made').iterdir())
    run_lm4ve('export', [*words, '--tolerance', '0.1'])
    assert [p.name for p in Path('made').iterdir()] == ['model.pt2']


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_outputs_that_are_no_numbers_are_no_match(bad):
    good = torch.zeros(2)
    wrong = torch.tensor([bad, 1.0])
    for outputs in ([good, wrong], [wrong, good]):
        difference = exporting.largest_difference(outputs, outputs)
        assert not difference <= 1e9
    assert exporting.largest_difference([good], [good]) == 0
