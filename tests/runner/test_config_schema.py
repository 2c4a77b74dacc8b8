"""The check of a config finds what MMEngine would ignore; overrides and files are read."""

import copy
from importlib.util import find_spec

import pytest
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.runner.config import check_config, merge_options, read_config
from tests.helpers.tasks import CONFIG_ROOTS, CONFIGS, ROOT

pytest.importorskip('mmpretrain')
DEMO = CONFIGS / 'lm4ve/vit-demo_none_digits.py'
LLAMA = dict(
    type='LLMBlock', pretrained=False, arch=dict(model_type='llama', hidden_size=8)
)


def demo(options: dict | None = None) -> Config:
    return read_config(DEMO, options, set_scope=False)


#: Fields of each dict that is read by name; a test doubles the last letter of each.
FIELDS = """
env_cfg.cudnn_benchmark env_cfg.tf32 auto_scale_lr.base_batch_size
optim_wrapper.paramwise_cfg.norm_decay_mult
optim_wrapper.paramwise_cfg.custom_keys.head.decay_mult
default_hooks.checkpoint.save_best default_hooks.checkpoint default_hooks.visualization.enable
train_dataloader.dataset.hparams.pad_val val_evaluator.iou_metrics
model.neck.block.arch.hidden_size
""".split()


@pytest.mark.parametrize('field', FIELDS)
def test_misspelled_key_is_named_with_suggestion(field):
    cfg = demo()
    wrong = field + field[-1]
    cfg.model.neck = dict(type='LLMBlockNeck', in_channels=64, block=LLAMA)
    cfg.val_evaluator = dict(type='mmseg.IoUMetric')
    cfg.merge_from_dict({wrong: 1})
    right = field.rpartition('.')[2]
    with pytest.raises(
        UserError, match=f"^{wrong} is not a known field. Did you mean.*'{right}'"
    ):
        check_config(cfg)
    cfg.allow_new = [wrong]
    check_config(cfg)


def test_class_is_known_by_its_scope_where_others_have_its_name():
    cfg = demo()
    cfg.model.backbone = dict(type='VisionTransformer', patc_size=16)
    check_config(cfg)  # mmpretrain's refuses it itself
    cfg.default_scope = 'mmaction'
    with pytest.raises(UserError, match="^model.backbone.patc_size .*'patch_size'"):
        check_config(cfg)


def test_groups_of_parameters_may_have_settings_of_their_optimizer():
    cfg = demo()
    head = dict(lr_mult=1, betas=(0.9, 0.99))
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(head=head))
    check_config(cfg)
    cfg.optim_wrapper.constructor = 'SwinOptimWrapperConstructor'
    cfg.optim_wrapper.paramwise_cfg = dict(head=head)
    check_config(cfg)
    cfg.optim_wrapper.paramwise_cfg = dict(head=dict(deacy_mult=0.0))
    with pytest.raises(
        UserError, match=r"paramwise_cfg.head.deacy_mult .*'decay_mult'"
    ):
        check_config(cfg)


def test_readers_that_are_not_mmengines_have_keys_of_their_own():
    cfg = demo()
    cfg.optim_wrapper.constructor = 'Mine'
    cfg.optim_wrapper.paramwise_cfg = dict(num_layers=12, custom_keys=dict(a=dict(b=1)))
    cfg.default_hooks.checkpoint = dict(type='MineHook', interval=1, mine=2)
    check_config(cfg)


@pytest.mark.parametrize('name', ['optim_wraper', 'optim_wrappr', 'custom_hook'])
def test_misspelled_field_of_config_is_named(name, tmp_path):
    path = tmp_path / 'a.py'
    path.write_text(f"_base_ = '{DEMO}'\n{name} = dict(optimizer=dict(lr=0.1))\n")
    with pytest.raises(UserError, match=f'^{name} is not a known field. Did you mean'):
        check_config(read_config(path, set_scope=False))
    path.write_text(path.read_text() + f"allow_new = ['{name}']\n")
    check_config(read_config(path, set_scope=False))


def test_variables_of_config_files_are_no_fields(tmp_path):
    (tmp_path / 'base.py').write_text(
        'optim_wrappers = 8\ntrain_cfgs = 2\nmodels = 1\n'
    )
    (tmp_path / 'a.py').write_text(
        "_base_ = './base.py'\n_custom_hook = 'mine'\nresumes = 3\n"
        'model = dict(w=_base_.optim_wrappers, d={{_base_.train_cfgs}}, h=resumes)\n'
        "model['m'] = _base_['models']\n"
    )
    check_config(read_config(tmp_path / 'a.py', set_scope=False))


WITHOUT_EFFECT = [
    (
        'optim_wraper.optimizer.lr',
        "^optim_wraper is not .*Did you mean 'optim_wrapper'",
    ),
    ('train_pipeline.0.scale', "'train_pipeline' is used up"),
]


@pytest.mark.parametrize('field, words', WITHOUT_EFFECT)
def test_override_without_effect_raises(field, words):
    with pytest.raises(UserError, match=words):
        demo({field: 1})
    cfg = demo(
        {'allow_new.my_notes.lr': 0.1, 'compile': True, 'auto_scale_lr.enable': False}
    )
    assert cfg.my_notes.lr == 0.1
    assert cfg['compile'] is True
    assert cfg.auto_scale_lr.enable is False
    check_config(cfg)


@pytest.mark.walk
def test_all_configs_and_their_dumps_pass(tmp_path):
    pytest.importorskip('mmaction')
    left_out = {'_base_', 'ablations'}
    # Few have these hosts.
    if not find_spec('mmseg'):
        left_out.add('segmentation')
    if not find_spec('mmdet'):
        left_out.add('detection')
    paths = []
    for path in (path for root in CONFIG_ROOTS for path in root.rglob('*.py')):
        if left_out.isdisjoint(path.relative_to(ROOT).parts):
            paths.append(path)
    assert len(paths) > 100
    for path in paths:
        cfg = Config.fromfile(path)
        check_config(cfg)
        cfg.dump(tmp_path / path.name)
        check_config(Config.fromfile(tmp_path / path.name))


def test_transforms_and_model_follow_image_size():
    crop = dict(type='CenterCrop', crop_size=224)
    resize = dict(type='Resize', scale=(224, 224))
    fields = dict(
        model=dict(encoder=dict(image_size=224, depth=224)), val_cfg=dict(scale=224)
    )
    fields['train_dataloader'] = dict(dataset=dict(datasets=[dict(pipeline=[crop])]))
    fields['test_pipeline'] = [dict(crop, crop_size=256), resize]
    cfg = Config(dict(fields, image_size=224))
    merge_options(cfg, dict(image_size=384))
    assert cfg.model.encoder == dict(image_size=384, depth=224)
    assert cfg.train_dataloader.dataset.datasets[0].pipeline[0].crop_size == 384
    assert cfg.test_pipeline[0].crop_size == 256
    assert cfg.test_pipeline[1].scale == (384, 384)
    assert cfg.val_cfg.scale == 224


def test_later_schedules_follow():
    warm = dict(type='LinearLR', by_epoch=True, end=5)
    cosine = dict(type='CosineAnnealingLR', begin=5, T_max=95, end=100, by_epoch=True)
    cfg = Config(dict(train_cfg=dict(max_epochs=100), param_scheduler=[warm, cosine]))
    merge_options(cfg, {'train_cfg.max_epochs': 20})
    assert cfg.param_scheduler[0].end == 5
    assert (cfg.param_scheduler[1].T_max, cfg.param_scheduler[1].end) == (15, 20)


def warm(**cosine) -> list[dict]:
    later = dict(type='CosineAnnealingLR', by_epoch=True, begin=20, **cosine)
    return [dict(type='LinearLR', by_epoch=True, end=20), later]


@pytest.mark.parametrize('cosine', [dict(), dict(end=100, T_max=80), dict(end=300)])
def test_training_that_ends_in_the_warmup_is_refused_with_a_fix(cosine):
    cfg = demo()
    cfg.param_scheduler = warm(**cosine)
    longer = copy.deepcopy(cfg)
    merge_options(longer, {'train_cfg.max_epochs': 21})
    check_config(longer)
    shorter = copy.deepcopy(cfg)
    merge_options(shorter, {'train_cfg.max_epochs': 1})
    words = r'^train_cfg.max_epochs=1: .* param_scheduler.1 .* Fix: .*param_scheduler.1.begin=0'
    with pytest.raises(UserError, match=words):
        check_config(shorter)
    fixed = copy.deepcopy(cfg)
    merge_options(fixed, {'train_cfg.max_epochs': 1, 'param_scheduler.1.begin': 0})
    check_config(fixed)


def test_schedule_that_ends_before_it_begins_is_refused():
    cfg = demo()
    cfg.param_scheduler = warm(end=10)
    with pytest.raises(
        UserError, match='^param_scheduler.1.begin=20 must be below .*end=10'
    ):
        check_config(cfg)


#: Numbers that are read at the end of an epoch.
LATE = """
train_cfg.val_interval train_cfg.val_begin default_hooks.checkpoint.interval
""".split()


@pytest.mark.parametrize('field', LATE)
@pytest.mark.parametrize('value', ['abc', [1]])
def test_another_value_for_a_number_that_is_read_late_is_refused(field, value):
    cfg = demo()
    cfg.merge_from_dict({field: value})
    with pytest.raises(UserError, match=f'^{field}=.* must be a number'):
        check_config(cfg)


WRONG_PLACES = {
    'model.backbone.img_size.x': 1,
    'train_dataloader.dataset.pipeline.9.type': 'Resize',
    'train_dataloader.dataset.pipeline.first.type': 'Resize',
    'custom_imports': 'lm4ve.nowhere',
    'custom_imports.imports': 'lm4ve.nowhere',
}


@pytest.mark.parametrize('field', WRONG_PLACES)
def test_override_of_a_place_that_is_not_there_is_named(field):
    with pytest.raises(UserError, match=f'^{field.partition(".")[0]}.* cannot be '):
        demo({field: WRONG_PLACES[field]})


@pytest.mark.parametrize(
    'field', ['optim_wrapper.optimizer.lr', 'param_scheduler.eta_max']
)
def test_rates_of_optimizer_and_one_cycle_follow_each_other(field):
    cfg = demo({field: 1e30})
    assert cfg.optim_wrapper.optimizer.lr == 1e30
    assert cfg.param_scheduler.eta_max == 1e30
    check_config(cfg)


#: What a one-cycle schedule replaces, in silence.
RATES = {
    'optim_wrapper.optimizer.lr': 1e30,
    'auto_scale_lr.enable': True,
    'optim_wrapper.paramwise_cfg.bias_lr_mult': 2.0,
    'optim_wrapper.paramwise_cfg.layer_decay_rate': 0.5,
    'optim_wrapper.paramwise_cfg.custom_keys': dict(head=dict(lr_mult=0.1)),
}


@pytest.mark.parametrize('field', RATES)
def test_rate_that_one_cycle_replaces_is_refused(field):
    cfg = demo()
    cfg.optim_wrapper.constructor = 'Mine'
    cfg.merge_from_dict({field: RATES[field]})
    with pytest.raises(
        UserError, match=f'{field}.*=.* has no effect: OneCycleLR.* Fix: '
    ):
        check_config(cfg)
    # A schedule that begins later leaves the optimizer's rates to those before it.
    cfg.param_scheduler = [
        dict(type='LinearLR', end=5),
        dict(cfg.param_scheduler, begin=5),
    ]
    check_config(cfg)


def test_a_dict_keeps_the_fields_that_were_set_before_it():
    cfg = Config(dict(model=dict(neck=dict(layers=(-1,)))))
    merge_options(cfg, {'model.neck.layers': (2,), 'model.neck': dict(causal=True)})
    assert cfg.model.neck == dict(layers=(2,), causal=True)


UNREADABLE = [
    ("_base_ = 'mmseg::one/of_theirs.py'", 'mmsegmentation is not installed.* extra'),
    ("_base_ = './below.py'", 'invalid syntax .*line 2.*: b = = 2'),
    ("_base_ = './model.pth'", 'Only py/yml/yaml/json type'),
    ('a = 1 / 0', 'division by zero'),
]


@pytest.mark.parametrize('text, words', UNREADABLE)
def test_unreadable_config_is_named_with_reason(text, words, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.config.config.is_installed', lambda name: False)
    (tmp_path / 'model.pth').write_bytes(b'weights')
    (tmp_path / 'below.py').write_text('a = 1\nb = = 2\n')
    (tmp_path / 'own.py').write_text(text)
    with pytest.raises(
        UserError, match=f"^The config '.*own.py' cannot be read: .*{words}"
    ):
        read_config(tmp_path / 'own.py')


def test_configs_are_found_by_name():
    expected = demo().to_dict()
    for name in (DEMO.stem, 'lm4ve::lm4ve/vit-demo_none_digits.py'):
        assert read_config(name, set_scope=False).to_dict() == expected


def test_delete_mark_without_a_field_to_delete_has_no_effect(tmp_path):
    (tmp_path / 'base.py').write_text("model = dict(type='A', b=dict(type='B', c=1))")
    (tmp_path / 'own.py').write_text(
        "_base_ = './base.py'\n"
        'model = dict(b=dict(_delete_=True, d=dict(_delete_=True, e=[dict(_delete_=True)])),'
        ' f=dict(_delete_=True, g=1))'
    )
    cfg = read_config(tmp_path / 'own.py', set_scope=False)
    assert cfg.to_dict()['model'] == dict(type='A', b=dict(d=dict(e=[{}])), f=dict(g=1))
