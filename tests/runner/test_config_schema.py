"""Mistakes of a user that would only show in the numbers are named instead."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner

from lm4ve.errors import UserError
from lm4ve.runner.config import check_fields, merge_options, read_config
from lm4ve.runner.strict_loading import warn_of_two_norms
from tests.helpers import models
from tests.helpers.tasks import CONFIGS

DEMO = CONFIGS / 'lm4ve/vit-demo_none_digits.py'


def test_a_misspelled_option_names_the_field():
    with pytest.raises(UserError, match="no field 'optim_wraper'.*Did you mean 'optim_wrapper'"):
        read_config(DEMO, {'optim_wraper.optimizer.lr': 0.1}, set_scope=False)


def test_who_insists_adds_a_field():
    cfg = read_config(DEMO, {'allow_new.my_notes.lr': 0.1}, set_scope=False)
    assert cfg.my_notes.lr == 0.1


def test_fields_of_the_runner_that_a_config_lacks_are_no_mistake():
    cfg = read_config(DEMO, {'compile': True, 'auto_scale_lr.enable': True}, set_scope=False)
    assert cfg['compile'] and cfg.auto_scale_lr.enable


def test_a_misspelled_field_of_a_config_is_named():
    with pytest.raises(UserError, match="'optim_wraper' .*'optim_wrapper'"):
        check_fields(Config(dict(optim_wraper=dict(), llm_block=dict())))
    check_fields(Config(dict(optim_wraper=dict(), allow_new=['optim_wraper'])))


NESTED = {
    'env_cfg.cudnn_benchmrk': "Did you mean 'cudnn_benchmark'",
    'env_cfg.mp_cfg.opencv_threads': "Did you mean 'opencv_num_threads'",
    'randomness.sed': "Did you mean 'seed'",
    'auto_scale_lr.base_batchsize': "Did you mean 'base_batch_size'",
    'log_processor.by_epohc': "Did you mean 'by_epoch'",
    'train_dataloader.batchsize': "Did you mean 'batch_size'",
    'val_dataloader.num_worker': "Did you mean 'num_workers'",
    'optim_wrapper.clip_grad.max_nrom': "Did you mean 'max_norm'",
    'optim_wrapper.paramwise_cfg.norm_decay_mul': "Did you mean 'norm_decay_mult'",
    'default_hooks.checkpoint.intervals': "Did you mean 'interval'",
    'default_hooks.check_point.interval': "Did you mean 'checkpoint'",
}


@pytest.mark.parametrize('name', NESTED)
def test_a_misspelled_name_within_a_field_is_named_before_training(name):
    cfg = read_config(DEMO, {name: 1}, set_scope=False)
    place = name if 'check_point' not in name else 'default_hooks.check_point'
    with pytest.raises(UserError, match=f'{place}: nobody reads.*{NESTED[name]}.*Fix'):
        check_fields(cfg)
    if 'check_point' not in name:
        check_fields(read_config(DEMO, {f'allow_new.{name}': 1}, set_scope=False))


@pytest.mark.parametrize(
    'name', ['train_dataloader.batch_size', 'val_dataloader.num_workers', 'train_cfg.max_epochs']
)
@pytest.mark.parametrize('value', ['two', 1.5, -1, True, [4]])
def test_numbers_are_whole(name, value):
    cfg = read_config(DEMO, {name: value}, set_scope=False)
    with pytest.raises(UserError, match=f'{name}=.* must be a whole number from [01]. Fix'):
        check_fields(cfg)


@pytest.mark.parametrize('name', ['model', 'train_dataloader', 'train_cfg', 'default_hooks'])
@pytest.mark.parametrize('value', [5, 'a', []])
def test_fields_of_another_kind_are_refused(name, value):
    cfg = read_config(DEMO, {name: value}, set_scope=False)
    with pytest.raises(UserError, match=f'{name}=.* must be a dict. Fix'):
        check_fields(cfg)


@pytest.mark.parametrize(
    'option, found',
    [
        (('custom_hooks', 5), 'custom_hooks=5 must be a list'),
        (('param_scheduler', 'cosine'), 'param_scheduler=cosine must be a dict or a list'),
        (('default_hooks.checkpoint', 5), 'default_hooks.checkpoint=5 must be a dict'),
        (('train_dataloader.dataset', 'digits'), 'train_dataloader.dataset=digits must be a dict'),
        (('optim_wrapper.optimizer.lr', 'a'), 'optimizer.lr=a must be a number'),
        (('optim_wrapper.optimizer.lr', float('nan')), 'optimizer.lr=nan must be a number'),
        (('log_level', 'LOUD'), 'log_level=LOUD must be one of .*WARNING'),
        (('val_evaluator', None), 'belong together, and val_evaluator is missing'),
    ],
)
def test_parts_of_another_kind_are_refused(option, found):
    cfg = read_config(DEMO, dict([option]), set_scope=False)
    with pytest.raises(UserError, match=f'{found}.*Fix'):
        check_fields(cfg)


@pytest.fixture
def warned(monkeypatch):
    """The warnings about fields of a config."""
    said = []
    monkeypatch.setattr('lm4ve.runner.config.print_log', lambda text, **_: said.append(text))
    return said


@pytest.mark.parametrize('name', ['optim_wraper', 'optim_wrappr', 'optimizer_wrapper'])
def test_a_field_that_resembles_one_is_refused_though_no_file_reads_it(name, tmp_path):
    path = tmp_path / 'a.py'
    path.write_text(f"_base_ = '{DEMO}'\n{name} = dict(optimizer=dict(lr=0.1))\n")
    with pytest.raises(UserError, match="Did you mean 'optim_wrapper'"):
        check_fields(read_config(path, set_scope=False))


@pytest.mark.parametrize('name', ['evaluation', 'lr', 'total_epochs', 'optimizer'])
def test_a_field_that_nobody_reads_is_a_warning_that_names_it(name, tmp_path, warned):
    path = tmp_path / 'a.py'
    path.write_text(f"_base_ = '{DEMO}'\n{name} = 3\n")
    check_fields(read_config(path, set_scope=False))
    (said,) = warned
    assert f"field '{name}' is read by none" in said and f"allow_new=['{name}']" in said


def test_variables_and_what_is_allowed_are_no_mistakes(tmp_path, warned):
    (tmp_path / 'base.py').write_text('width = 8\nrate = 0.1\ndepth = 2\nsizes = [1]\n')
    (tmp_path / 'a.py').write_text(
        "_base_ = './base.py'\n_notes = 'mine'\nallow_new = ['my_field']\nmy_field = 1\n"
        "height = 3\nmodel = dict(w=_base_.width, d={{_base_.depth}}, s='{{_base_.sizes}}')\n"
        "model['h'] = height\nmodel['r'] = _base_['rate']\n"
    )
    check_fields(read_config(tmp_path / 'a.py', set_scope=False))
    assert not warned


def test_an_option_for_a_variable_that_is_used_up_is_refused(tmp_path):
    demo = CONFIGS / 'lm4ve/vit-demo_minilm_digits.py'
    with pytest.raises(UserError, match="'llm_block' is a variable of the config file"):
        read_config(demo, {'llm_block.layers': (0,)}, set_scope=False)
    assert read_config(demo, {'allow_new.llm_block.layers': (0,)}, set_scope=False)


def test_an_option_that_comes_too_late_is_refused():
    with pytest.raises(UserError, match='custom_imports.imports: .*before overrides.*Fix'):
        read_config(DEMO, {'custom_imports.imports': ['mine']}, set_scope=False)


def test_no_config_of_ours_is_refused_or_warned_of(warned):
    pytest.importorskip('mmpretrain')
    pytest.importorskip('mmaction')
    hosts = dict(segmentation='mmseg', detection='mmdet')  # which few have
    left_out = {'_base_', 'ablations', *(k for k, host in hosts.items() if not find_spec(host))}
    paths = [p for p in CONFIGS.rglob('*.py') if not left_out & {*p.parts}]
    assert len(paths) > 100
    for path in paths:
        check_fields(Config.fromfile(path))
    assert not warned


def test_schedules_follow_the_number_of_epochs():
    cfg = read_config(DEMO, set_scope=False)
    before = cfg.train_cfg.max_epochs
    assert cfg.param_scheduler.total_steps == before
    merge_options(cfg, {'train_cfg.max_epochs': 5})
    assert cfg.param_scheduler.total_steps == 5


def test_a_file_that_cuts_its_schedule_is_warned_of(tmp_path, warned):
    path = tmp_path / 'a.py'
    path.write_text(f"_base_ = '{DEMO}'\ntrain_cfg = dict(max_epochs=5)\n")
    check_fields(read_config(path, set_scope=False))
    (said,) = warned
    assert 'max_epochs=5' in said and 'total_steps=100' in said and 'Fix' in said
    path.write_text(path.read_text() + 'param_scheduler = dict(total_steps=5)\n')
    check_fields(read_config(path, set_scope=False))
    assert len(warned) == 1


def test_the_sizes_of_images_and_model_follow_one_field():
    crop = dict(type='CenterCrop', crop_size=224)
    resize = dict(type='Resize', scale=(224, 224))
    cfg = Config(
        dict(
            image_size=224,
            model=dict(encoder=dict(image_size=224, depth=224)),
            train_dataloader=dict(dataset=dict(datasets=[dict(pipeline=[crop])])),
            test_dataloader=dict(dataset=dict(pipeline=[dict(crop, crop_size=256), resize])),
            tta_pipeline=[[crop]],
            val_cfg=dict(scale=224),
        )
    )
    merge_options(cfg, dict(image_size=384))
    assert cfg.model.encoder == dict(image_size=384, depth=224)
    assert cfg.train_dataloader.dataset.datasets[0].pipeline[0].crop_size == 384
    crop, resize = cfg.test_dataloader.dataset.pipeline
    assert (crop.crop_size, resize.scale) == (256, (384, 384))
    assert cfg.tta_pipeline[0][0].crop_size == 384 and cfg.val_cfg.scale == 224
    # Without that field nothing follows.
    cfg.pop('image_size')
    merge_options(cfg, {'model.encoder.image_size': 288})
    assert cfg.tta_pipeline[0][0].crop_size == 384


def test_schedules_that_begin_later_follow_or_refuse():
    def config() -> Config:
        warm = dict(type='LinearLR', by_epoch=True, end=5)
        cosine = dict(type='CosineAnnealingLR', begin=5, T_max=95, end=100, by_epoch=True)
        return Config(dict(train_cfg=dict(max_epochs=100), param_scheduler=[warm, cosine]))

    cfg = config()
    merge_options(cfg, {'train_cfg.max_epochs': 20})
    assert cfg.param_scheduler[0].end == 5
    assert (cfg.param_scheduler[1].T_max, cfg.param_scheduler[1].end) == (15, 20)
    with pytest.raises(UserError, match='max_epochs=4 ends before CosineAnnealingLR begins'):
        merge_options(config(), {'train_cfg.max_epochs': 4})


class Diverges(BaseModel):
    """Its loss, or only its gradient, is NaN from the third iteration on."""

    def __init__(self, only_gradient: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen, self.only_gradient = 0, only_gradient

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.seen += 1
        if self.only_gradient:
            root = (self.weight * 0 + float(self.seen <= 2)).sqrt()
            return dict(loss=(0 * root).sum())
        return dict(loss=self.weight.sum() + (float('nan') if self.seen > 2 else 0.0))


def train(tmp_path: Path, only_gradient: bool = False, **options) -> None:
    data = [dict(inputs=torch.ones(1)) for _ in range(4)]
    Runner(
        model=Diverges(only_gradient),
        work_dir=str(tmp_path),
        train_dataloader=dict(dataset=data, sampler=dict(type='DefaultSampler'), batch_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='lm4ve.AtomicCheckpointHook', by_epoch=False, interval=1),
            finite=dict(type='lm4ve.FiniteLossHook', **options),
        ),
        experiment_name=tmp_path.name,
    ).train()


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_last_good_file(tmp_path):
    with pytest.raises(UserError, match='iteration 3 .epoch 1. is nan'):
        train(tmp_path)
    assert not (tmp_path / 'iter_3.pth').exists()
    state = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['state_dict']
    assert torch.isfinite(state['weight']).all()


def test_weights_that_are_no_numbers_are_not_saved_though_the_loss_is_one(tmp_path):
    with pytest.raises(UserError, match='After iteration 3 .epoch 1. 1 weights are not finite'):
        train(tmp_path, only_gradient=True)
    assert (tmp_path / 'iter_2.pth').exists() and not (tmp_path / 'iter_3.pth').exists()


@pytest.mark.parametrize('tolerate, only_gradient', [(-1, False), (2, False), (-1, True)])
def test_who_insists_trains_on(tmp_path, tolerate, only_gradient):
    train(tmp_path, only_gradient, tolerate=tolerate)
    assert (tmp_path / 'iter_4.pth').exists()


def test_digits_are_not_flipped():
    cfg = read_config(DEMO, set_scope=False)
    assert 'TestTimeAug' in str(cfg.tta_pipeline)
    assert 'Flip' not in str(cfg.tta_pipeline)


@pytest.mark.parametrize(
    'task, part, norm',
    [
        ('image', 'backbone', dict(final_norm=True)),
        ('pointcloud', 'backbone', dict(norm=torch.nn.LayerNorm(16))),
        ('motion', 'encoder', dict(final_norm=torch.nn.LayerNorm(16))),
    ],
    ids=lambda x: x if isinstance(x, str) else '',
)
def test_a_norm_before_the_neck_is_a_warning(task, part, norm, monkeypatch):
    said = []
    where = 'lm4ve.runner.strict_loading'
    monkeypatch.setattr(f'{where}.print_log', lambda text, **_: said.append(text))
    model, _ = models.build(task)
    warn_of_two_norms(model)
    assert not said
    for name, value in norm.items():
        setattr(getattr(model, part), name, value)
    warn_of_two_norms(model)
    assert f'model.{part}.final_norm=False' in said[0]


def test_clouds_in_millimeters_are_a_warning_once(monkeypatch):
    from lm4ve.tasks.pointcloud.models import classifier

    said = []
    monkeypatch.setattr(classifier, 'print_log', lambda text, **_: said.append(text))
    for scale, warnings in ((1.0, 0), (800.0, 1)):
        preprocessor = classifier.PointCloudPreprocessor()
        for _ in range(2):
            preprocessor(dict(inputs=[torch.rand(8, 3) * scale]))
        assert len(said) == warnings
    assert 'lm4ve.NormalizeToUnitSphere' in said[0]
