"""A checkpoint's training is compared with the config that uses the checkpoint."""

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger

from lm4ve.errors import CheckpointError
from lm4ve.runner.config import read_config
from lm4ve.runner.stored_config import Unreadable, plain_config, stored_config
from lm4ve.runner.trained_config import (
    Difference,
    Use,
    compare,
    compare_with_training,
    portable_parts,
)
from tests.helpers.logs import record_logs
from tests.helpers.quick_mmengine import formatter
from tests.helpers.tasks import CONFIG_FILES

DEMO = 'vit-demo_none_digits'


def demo() -> Config:
    pytest.importorskip('mmpretrain')
    return read_config(DEMO, set_scope=False)


def text_of(cfg: Config) -> str:
    """The text that MMEngine stores of a config, without yapf's layout, which takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formatter(), 'FormatCode', lambda text, **_: (text, False))
        return cfg.pretty_text


def differences(
    trained: Mapping[str, Any], now: Mapping[str, Any], use: Use = Use.TEST
) -> list[Difference]:
    return compare(trained, now, use).differences


def fields_of(found: list[Difference]) -> list[str]:
    return [each.field for each in found]


def changed(field: str, value: Any) -> list[Difference]:
    """What differs once a field of the demo has another value."""
    trained = demo()
    now = demo()
    now.merge_from_dict({field: value})
    return differences(plain_config(trained), plain_config(now))


# ------------------------------------------------------------------- the examples
HOSTS = {
    'model.backbone.arch.num_heads': 8,
    'model.backbone.layer_cfgs': dict(act_cfg=dict(type='ReLU')),
    'model.backbone.norm_cfg': dict(type='LN', eps=0.1),
    'data_preprocessor.mean': [0, 0, 0],
    'data_preprocessor.std': [50, 50, 50],
    'test_dataloader.dataset.pipeline': [
        dict(type='Resize', scale=4),
        dict(type='Resize', scale=(8, 8)),
        dict(type='PackInputs'),
    ],
    'test_dataloader.dataset.split': 'train',
}


@pytest.mark.parametrize('field', HOSTS)
def test_another_host_or_preprocessing_is_found(field):
    (found,) = changed(field, HOSTS[field])
    assert found.field.startswith(field)


def test_other_number_of_transforms_shows_both_lists():
    field = 'test_dataloader.dataset.pipeline'
    (found,) = changed(field, HOSTS[field])
    assert found.field == field
    assert (len(found.trained), len(found.now)) == (2, 3)


def test_field_that_was_left_out_is_named():
    (found,) = changed('model.backbone.norm_cfg', dict(type='LN', eps=0.1))
    assert str(found) == (
        "model.backbone.norm_cfg: trained without it, now {'type': 'LN', 'eps': 0.1}"
    )


# ------------------------------------------------------------------------ no false alarms
@pytest.mark.parametrize(
    'path', CONFIG_FILES, ids=lambda p: f'{p.parent.name}/{p.name}'
)
def test_config_differs_in_nothing_from_its_stored_text(path):
    cfg = read_config(path, set_scope=False)
    trained = stored_config(dict(cfg=text_of(cfg)))
    for use in Use:
        found = compare(trained, plain_config(cfg), use)
        assert not found.lines


SAME = {
    'a ViT that begins otherwise': ('model.backbone.type', 'lm4ve.ReleasedViT'),
    'a scope that is written': ('model.type', 'mmpretrain.ImageClassifier'),
    'a tuple': ('data_preprocessor.mean', (77.9, 77.9, 77.9)),
    'a number of another type': ('model.head.num_classes', 10.0),
}


@pytest.mark.parametrize('field, value', SAME.values(), ids=list(SAME))
def test_other_notation_is_no_difference(field, value):
    assert changed(field, value) == []


def test_preprocessor_may_stand_in_the_model():
    now = demo()
    now.model.data_preprocessor = now.pop('data_preprocessor')
    assert differences(plain_config(demo()), plain_config(now)) == []
    now.model.data_preprocessor.mean = [0, 0, 0]
    (found,) = differences(plain_config(demo()), plain_config(now))
    assert found.field == 'data_preprocessor.mean'


def test_wrapper_of_data_is_no_difference():
    now = demo()
    dataset = now.test_dataloader.dataset
    now.test_dataloader.dataset = ConfigDict(
        type='RepeatDataset', times=2, dataset=dataset
    )
    assert differences(plain_config(demo()), plain_config(now)) == []
    dataset.pipeline[0].scale = 4
    (found,) = differences(plain_config(demo()), plain_config(now))
    assert found.field == 'test_dataloader.dataset.pipeline.0.scale'


def test_none_is_a_value():
    """The default of a field may be another one."""
    (found,) = changed('model.head.act_cfg', None)
    assert str(found) == 'model.head.act_cfg: trained without it, now None'


def test_other_fold_is_a_difference():
    def folds(fold: int) -> dict[str, Any]:
        cfg = plain_config(demo())
        dataset = cfg['test_dataloader']['dataset']
        wrapper = dict(type='KFoldDataset', fold=fold, num_splits=5, dataset=dataset)
        cfg['test_dataloader'] = dict(dataset=wrapper)
        return cfg

    assert differences(folds(0), folds(0)) == []
    assert fields_of(differences(folds(0), folds(1))) == [
        'test_dataloader.dataset.fold'
    ]


def test_joined_data_with_the_same_transforms_are_no_difference():
    now = demo()
    dataset = now.test_dataloader.dataset
    joined = dict(type='ConcatDataset', datasets=[dataset, dataset])
    now.test_dataloader.dataset = ConfigDict(joined)
    assert differences(plain_config(demo()), plain_config(now)) == []


def test_augmented_test_is_no_difference():
    now = demo()
    now.model = dict(type='AverageClsScoreTTA', module=now.model)
    now.test_dataloader.dataset.pipeline = [dict(type='TestTimeAug')]
    assert not compare(plain_config(demo()), plain_config(now)).lines


def test_other_data_may_have_other_splits():
    now = demo()
    now.test_dataloader.dataset.update(type='ImageNet', split='val', seed=3)
    assert differences(plain_config(demo()), plain_config(now)) == []


def test_paths_differ_by_their_last_part():
    def vqa(vocabulary: Any) -> dict[str, Any]:
        return dict(model=dict(type='METER', head=dict(vocabulary=vocabulary)))

    trained = vqa('data/coco/vocabulary.json')
    assert differences(trained, vqa('/mnt/vocabulary.json')) == []
    assert differences(trained, vqa('data/coco/other.json'))
    found = compare(trained, vqa(['yes', 'no']))
    assert found.not_compared == ['model.head.vocabulary']
    assert found.differences == []


def test_block_and_neck_are_left_to_their_records():
    """A release names no language model, and holds its config."""
    neck = dict(type='LLMBlockNeck', block=dict(type='LLMBlock', checkpoint='llama'))
    released = dict(
        type='LLMBlockNeck',
        block=dict(
            type='lm4ve.LLMBlock', checkpoint=None, arch=dict(model_type='llama')
        ),
    )
    trained = dict(model=dict(neck=neck))
    assert differences(trained, dict(model=dict(neck=released))) == []
    other = dict(type='LLMBlockNeck', block=dict(type='Other', heads=4))
    found = fields_of(differences(trained, dict(model=dict(neck=other))))
    assert found == ['model.neck.block.heads', 'model.neck.block.type']


# ------------------------------------------------------------------------------ any field
#: Fields that change no prediction, wherever they stand in a model or its preprocessor.
WITHOUT_EFFECT = {
    'init_cfg': dict(type='Constant', val=0.5),
    'with_cp': True,
    'pretrained': 'https://example.org/other.pth',
    'drop_path_rate': 0.7,
    'drop_rate': 0.6,
    'attn_drop_rate': 0.5,
    'dropout': 0.3,
    'dropout_ratio': 0.3,
    'frozen_stages': 2,
    'norm_eval': True,
    'label_smoothing': 0.3,
    'train_cfg': dict(augments=dict(type='Mixup', alpha=0.3)),
    'batch_augments': dict(type='CutMix', alpha=0.3),
    'loss': dict(type='LabelSmoothLoss', label_smooth_val=0.5),
    'loss_cls': dict(type='CrossEntropyLoss', loss_weight=3.0),
}
#: Fields that are no field of a model.
ELSEWHERE = {
    'work_dir': 'elsewhere',
    'load_from': 'other.pth',
    'train_dataloader.batch_size': 3,
    'test_dataloader.batch_size': 5,
    'test_dataloader.num_workers': 7,
    'test_dataloader.dataset.data_root': 'elsewhere',
    'train_cfg.max_epochs': 7,
    'optim_wrapper.optimizer.lr': 0.3,
    'randomness': dict(seed=3),
}


def leaves_of(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the place of each value that is no container: its dict or list, and its key."""
    if isinstance(node, Mapping):
        items = list(node.items())
    else:
        items = list(enumerate(node))
    for key, value in items:
        if isinstance(value, (Mapping, list)) and value:
            yield from leaves_of(value)
        else:
            yield node, key


def another(value: Any) -> Any:
    """A value that a model would take for another one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return f'{value}Other'
    if isinstance(value, tuple):
        return (*value, 1)
    return 3


def dicts_in(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, Mapping):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from dicts_in(value)


def host() -> dict[str, Any]:
    """A host without a block, whose fields all count. Its classes have no known defaults."""
    pipeline = [
        dict(type='MyResize', scale=(8, 8), backend='cv2'),
        dict(type='MyCrop', crop_size=7, interpolation='bicubic'),
        dict(type='MyChoice', transforms=[[dict(type='MyA', x=1)], [dict(type='MyB')]]),
    ]
    norms = [dict(type='MyNorm', eps=1e-5), dict(type='MyNorm', eps=1e-6)]
    backbone = dict(
        type='MyViT', arch=dict(num_heads=4, depths=[1, 2]), act=True, norms=norms
    )
    model = dict(
        type='MyClassifier',
        backbone=backbone,
        head=dict(type='MyHead', classes=10, thresholds=[0.1, 0.2]),
        test_cfg=dict(mode='slide', stride=[3, 4]),
    )
    return dict(
        default_scope='mine',
        model=model,
        data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[4.0] * 3, to_rgb=True),
        test_dataloader=dict(
            batch_size=2, dataset=dict(type='MyData', split='test', pipeline=pipeline)
        ),
    )


@pytest.mark.parametrize('use', [Use.TEST, Use.INFERENCE, Use.RESUME])
@pytest.mark.parametrize('seed', range(40))
def test_any_change_of_model_preprocessing_and_transforms_is_found(seed, use):
    draw = random.Random(seed)
    trained = host()
    now = copy.deepcopy(trained)
    places = []
    for part in (now['model'], now['data_preprocessor'], now['test_dataloader']):
        places += leaves_of(part)
    holder, key = draw.choice([place for place in places if counts(*place, use)])
    kind = draw.random()
    if kind < 0.4 or key == 'type':
        holder[key] = another(holder[key])
    elif kind < 0.6:
        holder[key] = None
    else:
        del holder[key]
    assert len(differences(trained, now, use)) == 1


def counts(holder: Any, key: Any, use: Use) -> bool:
    """Whether a leaf of :func:`host` is compared."""
    if key == 'batch_size':
        return False
    if key == 'split':  # a user's files have none
        return use is Use.TEST
    is_data = isinstance(holder, Mapping) and 'split' in holder
    return not is_data  # other data are a choice


@pytest.mark.parametrize('seed', range(30))
def test_no_change_without_effect_on_predictions_is_found(seed):
    draw = random.Random(seed)
    trained = Config(host())
    now = copy.deepcopy(trained)
    for _ in range(3):
        nodes = [n for n in dicts_in(now.model) if 'type' in n]
        name = draw.choice(list(WITHOUT_EFFECT))
        draw.choice(nodes)[name] = WITHOUT_EFFECT[name]
        field = draw.choice(list(ELSEWHERE))
        now.merge_from_dict({field: ELSEWHERE[field]})
    for use in (Use.TEST, Use.INFERENCE):
        assert differences(plain_config(trained), plain_config(now), use) == []


def test_sigmoid_of_a_loss_counts_since_heads_predict_by_it():
    def head(use_sigmoid: bool) -> dict[str, Any]:
        loss = dict(type='FocalLoss', gamma=2.0, use_sigmoid=use_sigmoid)
        return dict(model=dict(bbox_head=dict(type='RetinaHead', loss_cls=loss)))

    found = differences(head(True), head(False))
    assert fields_of(found) == ['model.bbox_head.loss_cls']


# ------------------------------------------------------------------------------- resuming
RESUMED = {
    'data_preprocessor.mean': [0, 0, 0],
    'model.head.loss.label_smooth_val': 0.5,
    'model.backbone.drop_path_rate': 0.3,
    'optim_wrapper.clip_grad': dict(max_norm=3.0),
    'optim_wrapper.optimizer.betas': (0.5, 0.9),
    'train_dataloader.dataset.pipeline.0.angle': 90.0,
    'test_dataloader.dataset.pipeline.0.scale': (4, 4),
}


@pytest.mark.parametrize('field', RESUMED)
def test_resumed_training_names_what_acts_in_training(field):
    now = demo()
    now.merge_from_dict({field: RESUMED[field]})
    found = differences(plain_config(demo()), plain_config(now), Use.RESUME)
    assert found
    for each in found:
        assert field.startswith(each.field) or each.field.startswith(field)


def test_resumed_training_says_that_fields_of_the_optimizer_do_not_apply():
    now = demo()
    now.merge_from_dict({'optim_wrapper.optimizer.betas': (0.5, 0.9)})
    (found,) = differences(plain_config(demo()), plain_config(now), Use.RESUME)
    assert 'does not apply' in str(found)


def test_longer_training_with_other_batches_is_no_difference():
    now = demo()
    now.merge_from_dict({'train_cfg.max_epochs': 400, 'train_dataloader.batch_size': 8})
    now.optim_wrapper.accumulative_counts = 8
    assert differences(plain_config(demo()), plain_config(now), Use.RESUME) == []


# ------------------------------------------------------------------------ data, not code
@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / 'executed'


def test_stored_config_is_never_run(marker):
    call = f'__import__("pathlib").Path({str(marker)!r}).touch()'
    text = (
        f'{call}\nmodel = dict(type="A", depth={call}, width=3)\n'
        f'data_preprocessor = [{call} for _ in "a"]\n'
        f'default_scope = (lambda: {call})()\n'
        f'class test_dataloader:\n    {call}\n'
    )
    trained = stored_config(dict(cfg=text))
    now = dict(model=dict(type='A', depth=2, width=4), data_preprocessor=dict(mean=1))
    found = compare(trained, now)
    assert not marker.exists()
    assert fields_of(found.differences) == ['model.width']
    assert found.not_compared == ['data_preprocessor', 'model.depth']


def endless() -> dict[str, Any]:
    value: list[Any] = []
    value.append(value)
    return dict(model=value)


def deep() -> dict[str, Any]:
    value: Any = 1
    for _ in range(400):
        value = dict(type='A', width=value)
    return dict(model=value)


HOSTILE: dict[str, Callable[[], Any]] = {
    'no Python': lambda: 'model = dict(',
    'a null byte': lambda: 'model = "\0"',
    'deep brackets': lambda: 'model = ' + '(' * 5000,
    'deep signs': lambda: 'model = ' + '-' * 50_000 + '1',
    'deep attributes': lambda: 'model = a' + '.a' * 50_000,
    'a list as a key': lambda: 'model = {[1]: 2}',
    'a power': lambda: 'model = dict(type=9**9**9)',
    'a huge number': lambda: 'model = dict(type="A", width=0x' + 'f' * 100_000 + ')',
    'a number': lambda: 3,
    'a list': lambda: [3],
    'tensors': lambda: torch.ones(3),
    'a dict of tensors': lambda: dict(model=dict(type='A', width=torch.ones(3))),
    'a list that holds itself': endless,
    'deep dicts': deep,
    'deep calls': lambda: 'model = ' + 'dict(a=' * 150 + '1' + ')' * 150,
    'a number of many digits as a key': lambda: 'model = {0x' + 'f' * 20_000 + ': 1}',
    'long': lambda: 'model = "' + 'a' * 2_000_000 + '"',
    'a key of many digits': lambda: dict(model={'9' * 9000: 1}),
    'a set': lambda: 'model = dict(type="A", width={1, 2})',
    'keys of other types': lambda: {1: 2, 'model': {(1, 2): 3, 4: 5, None: 6}},
    'control characters': lambda: 'model = dict(type="A", width="\\x1b[2J\\n")',
}


@pytest.mark.parametrize('hostile', HOSTILE)
def test_hostile_config_is_refused_when_strict_and_named_otherwise(hostile):
    checkpoint = dict(meta=dict(cfg=HOSTILE[hostile]()))
    now = dict(model=dict(type='A', width=4))
    compare_with_training(checkpoint, now, 'The file', Use.TEST)
    with pytest.raises(CheckpointError) as caught:
        compare_with_training(checkpoint, now, 'The file', Use.TEST, strict=True)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def test_words_that_are_no_literals_are_compared_as_text():
    trained = stored_config(dict(cfg='model = dict(type="A", dtype=torch.float32)'))
    assert trained['model']['dtype'] == Unreadable('torch.float32')
    same = dict(model=dict(type='A', dtype=Unreadable('torch.float32')))
    assert not compare(trained, same).lines
    other = dict(model=dict(type='A', dtype=Unreadable('torch.float16')))
    assert compare(trained, other).not_compared == ['model.dtype']


def test_numbers_without_a_literal_are_read():
    cfg = Config(dict(model=dict(type='A', low=float('-inf'))))
    trained = stored_config(dict(cfg=text_of(cfg)))
    assert not compare(trained, plain_config(cfg)).lines


# ------------------------------------------------------------------------------- messages
@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the log gets."""
    lines = record_logs(monkeypatch, 'lm4ve.runner.trained_config')
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'info', lambda text, **_: lines.append(text))
    return lines


def test_export_keeps_what_a_test_compares():
    cfg = demo()
    cfg.model.backbone.layer_cfgs = {'3': {4: 5}, 'act': float('inf')}
    cfg.test_dataloader.dataset.pipeline[0].file = '/home/somebody/list.txt'
    dataset = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=dataset)
    parts = portable_parts(dict(meta=dict(cfg=text_of(cfg))))
    text = json.dumps(parts)
    assert 'somebody' not in text
    stored = stored_config(dict(cfg=json.loads(text)))
    for use in (Use.TEST, Use.INFERENCE):
        assert not compare(stored, plain_config(cfg), use).lines
    dataset.split = 'train'
    assert len(differences(stored, plain_config(cfg))) == 1
    assert portable_parts(dict(meta={})) is None


def test_all_differences_are_in_one_warning_of_few_lines(said):
    trained = {f'field_{number}': number for number in range(30)}
    now = {name: value + 1 for name, value in trained.items()}
    checkpoint = dict(meta=dict(cfg=dict(model=trained)))
    compare_with_training(checkpoint, dict(model=now), "'a.pth'", Use.INFERENCE)
    (text,) = said
    lines = text.splitlines()
    assert lines[0] == "'a.pth' was trained otherwise:"
    assert lines[1] == '  model.field_0: trained with 0, now 1'
    assert lines[-1] == '  and 10 more fields' and len(lines) == 22


@pytest.mark.parametrize('meta', [{}, dict(cfg=''), dict(epoch=3)])
def test_checkpoint_without_a_config_is_said_to_be_not_compared(meta, said):
    checkpoint = dict(meta=meta, state_dict={})
    compare_with_training(checkpoint, host(), "'a.pth'", Use.TEST)
    assert said == ["'a.pth' not compared with its training: it holds no config"]
    with pytest.raises(CheckpointError, match='it holds no config'):
        compare_with_training(checkpoint, host(), "'a.pth'", Use.TEST, strict=True)


def test_config_of_the_training_is_not_mentioned(said):
    checkpoint = dict(meta=dict(cfg=host()))
    compare_with_training(checkpoint, host(), "'a.pth'", Use.TEST, strict=True)
    assert said == []
