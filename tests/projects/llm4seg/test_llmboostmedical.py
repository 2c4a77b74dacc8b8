"""LLMBoostMedical's models give what its own code gave on the same weights.

``tools/dev/released/llmboostmedical.py`` stored it.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, DefaultScope
from mmpretrain.structures import DataSample

from llm4seg import HighestLossStopHook, WideHeadMetric
from llm4seg.converters import VIVIT_RULES, convert_medical
from lm4ve.runner.config import read_config
from lm4ve.tasks.image.converters import VIT_LLAMA_RULES, VIT_RULES, convert_vit
from tests.helpers.closeness import rounding_bound
from tests.helpers.stored_results import (
    assert_equal_rows,
    marks_of,
    our_names,
    read_stored,
    released_state,
    write_llama,
)
from tests.helpers.tasks import FOLDERS

STORED = read_stored('llmboostmedical')
#: Width of the small LLaMA.
DIM = 32
MODES = ['plain', 'none', 'inner', 'outer', 'both']


def released_config():
    return read_config(FOLDERS['medical'] / 'vit-s_llama-inner-released_retinamnist.py')


def random_input(*shape):
    return torch.from_numpy(np.random.default_rng(2).standard_normal(shape))


def build(model_cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(model_cfg).double().train()


def bound_of(mode):
    """A model without a block computes in float64; the block's norms are of float32."""
    if mode == 'plain':
        return 1e-7
    return rounding_bound(torch.float32, [DIM, DIM, DIM])


def samples(labels):
    return [DataSample().set_gt_label(label) for label in labels]


@pytest.mark.parametrize('mode', MODES)
def test_vit_gives_released_logits_mixup_loss_and_gradients(
    mode, tmp_path, monkeypatch
):
    name, bound = f'vit.{mode}', bound_of(mode)
    state = released_state(STORED[f'{name}.shapes'])
    model_cfg = released_config().model
    model_cfg.backbone.update(img_size=32, drop_path_rate=0.0)
    model_cfg.backbone.arch = dict(
        embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=96
    )
    model_cfg.head.in_channels = 24
    model_cfg.train_cfg.augments = [dict(type='Mixup', alpha=0.8)]
    rules, llm = VIT_RULES, None
    if mode == 'plain':
        model_cfg.backbone.update(out_type='cls_token', final_norm=True)
        model_cfg.neck = None
    else:
        rules, llm = VIT_LLAMA_RULES, write_llama(tmp_path / 'llama', state, heads=4)
        model_cfg.neck.update(in_channels=24, residual=mode)
        model_cfg.neck.block.update(checkpoint=llm, dtype='float32')
    model_cfg.data_preprocessor = dict(mean=[0.0], std=[1.0], num_classes=1000)
    model = build(model_cfg)
    model.load_state_dict(convert_vit(state, llm), strict=True)
    x = random_input(2, 3, 32, 32)
    assert_equal_rows(model(x).detach()[:, :8], STORED[f'{name}.clean_logits'], bound)
    # Of two pictures, each is the other's partner; the factor is the stored one.
    monkeypatch.setattr(np.random, 'beta', lambda *_: float(STORED['vit.lam']))
    monkeypatch.setattr(torch, 'randperm', lambda _: torch.tensor([1, 0]))
    data = dict(inputs=x, data_samples=samples([3, 1]))
    data = model.data_preprocessor(data, training=True)
    loss = model(**data, mode='loss')['loss']
    loss.backward()
    assert_equal_rows(loss.detach(), STORED[f'{name}.loss'], bound)
    names = our_names(STORED[f'{name}.gradient_names'], rules)
    assert_equal_rows(marks_of(model, names), STORED[f'{name}.gradients'], bound)
    assert len(names) == len([*model.parameters()])


@pytest.mark.parametrize('mode', [*MODES, 'skip'])
def test_vivit_gives_released_logits_loss_and_gradients(mode, tmp_path):
    name, bound = f'vivit.{mode}', bound_of(mode)
    state = released_state(STORED[f'{name}.shapes'])
    config = 'vivit_none_fracturemnist3d.py'
    if mode != 'plain':
        config = 'vivit_llama-inner_fracturemnist3d.py'
    if mode == 'skip':
        config = 'vivit_llama-outer-nn_fracturemnist3d.py'
    model_cfg = read_config(FOLDERS['medical'] / config).model
    model_cfg.backbone.update(
        image_size=8,
        frames=4,
        frame_patch_size=2,
        embed_dims=24,
        depth=2,
        num_heads=2,
        head_dims=8,
    )
    model_cfg.head.in_channels = 24
    llm = None
    if mode != 'plain':
        llm = write_llama(tmp_path / 'llama', state, heads=4)
        model_cfg.neck.in_channels = 24
        model_cfg.neck.block.update(checkpoint=llm, dtype='float32')
    if mode in ('none', 'inner', 'outer', 'both'):
        model_cfg.neck.residual = mode
    model = build(model_cfg)
    converted = convert_medical(state, llm, skip=mode == 'skip')
    model.load_state_dict(converted, strict=True)
    x = random_input(2, 3, 4, 8, 8)
    assert_equal_rows(model(x).detach(), STORED[f'{name}.logits'], bound)
    loss = model(x, samples([2, 1]), mode='loss')['loss']
    loss.backward()
    assert_equal_rows(loss.detach(), STORED[f'{name}.loss'], bound)
    names = our_names(STORED[f'{name}.gradient_names'], VIVIT_RULES)
    assert_equal_rows(marks_of(model, names), STORED[f'{name}.gradients'], bound)
    assert len(names) == len([*model.parameters()])


def first_input(cfg, root, images):
    """Return what the model gets of the first picture or volume of a file of ``images``."""
    dataset_cfg = cfg.test_dataloader.dataset
    labels = np.zeros((1, 1), np.uint8)
    arrays = dict(test_images=images[None], test_labels=labels)
    np.savez(root / f'{dataset_cfg.flag}.npz', **arrays)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(dict(dataset_cfg, data_root=str(root)))
        preprocessor = MODELS.build(
            dict(cfg.data_preprocessor, type='ClsDataPreprocessor')
        )
    return preprocessor(pseudo_collate([dataset[0]]))['inputs'][0]


def test_network_gets_the_released_picture(tmp_path):
    """A JPEG copy, resized and cropped by Pillow and normalized."""
    picture = np.random.default_rng(3).integers(0, 256, (28, 28, 3), np.uint8)
    found = first_input(released_config(), tmp_path, picture)
    np.testing.assert_allclose(
        found[:, ::8, ::8], STORED['picture.input'], rtol=0, atol=1e-6
    )


def test_network_gets_the_released_volume(tmp_path):
    volume = np.random.default_rng(4).integers(0, 256, (28, 28, 28), np.uint8)
    cfg = read_config(FOLDERS['medical'] / 'vivit_none_fracturemnist3d.py')
    found = first_input(cfg, tmp_path, volume)
    np.testing.assert_allclose(
        found[:, ::8, ::8, ::8], STORED['volume.input'], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize('task', ['multi-class', 'binary-class'])
def test_metric_counts_as_the_released_evaluation(task):
    num_classes = 5 if task == 'multi-class' else 2
    logits = torch.from_numpy(np.random.default_rng(5).standard_normal((21, 1000)))
    logits[:, :5] += 3
    metric = WideHeadMetric()
    metric.dataset_meta = dict(classes=range(num_classes), medmnist_task=task)
    labels = torch.arange(21) % num_classes
    for rows in torch.arange(21).split(9):
        batch = []
        for row in rows.tolist():
            score = logits[row].softmax(-1)
            batch.append(dict(pred_score=score, gt_label=labels[row : row + 1]))
        metric.process(None, batch)
    found = metric.evaluate(21)
    found = [found[f'medmnist/{name}'] for name in ('loss', 'ACC', 'AUC')]
    np.testing.assert_allclose(found, STORED[f'evaluation.{num_classes}'], rtol=1e-7)


def test_training_ends_where_the_released_one_does():
    for seed, expected in enumerate(STORED['early_stopping.ends']):
        losses = np.random.default_rng(seed).standard_normal(40).tolist()
        hook = HighestLossStopHook('medmnist/loss', patience=3)
        runner = SimpleNamespace(
            message_hub=MessageHub(f'seed {seed}'),
            train_loop=SimpleNamespace(stop_training=False),
            logger=MMLogger.get_current_instance(),
        )
        end = 0
        while end < len(losses) and not runner.train_loop.stop_training:
            metrics = {'medmnist/loss': losses[end]}
            # As MMEngine's RuntimeInfoHook does before the other hooks.
            runner.message_hub.update_scalar('val/medmnist/loss', losses[end])
            hook.after_val_epoch(runner, metrics)
            end += 1
        assert end == expected


def test_schedule_begins_at_the_released_rates():
    cfg = released_config()
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.25e-4)
    scheduler = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler[0]), default_args=dict(optimizer=optimizer)
    )
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    # The released first epoch has the rate that its warm-up begins with.
    np.testing.assert_allclose(rates[1:], STORED['schedule.rates'][1:], rtol=1e-7)


def test_released_parameters_decay():
    cfg = released_config()
    model_cfg = cfg.model
    model_cfg.backbone.update(img_size=32)
    model_cfg.backbone.arch = dict(
        embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=96
    )
    model_cfg.neck.in_channels = 24
    model_cfg.head.in_channels = 24
    arch = dict(model_type='llama', hidden_size=DIM, intermediate_size=96)
    arch.update(num_attention_heads=4)
    model_cfg.neck.block = dict(type='LLMBlock', arch=arch)
    model = build(model_cfg)
    # The automatic mixed precision of the config needs a GPU.
    del cfg.optim_wrapper['loss_scale']
    cfg.optim_wrapper.type = 'OptimWrapper'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {0.0: set(), 0.05: set()}
    for group in optimizer.param_groups:
        for parameter in group['params']:
            found[group['weight_decay']].add(names[parameter])
    for decay, group_names in found.items():
        expected = our_names(STORED[f'groups.{decay}'], VIT_LLAMA_RULES)
        assert group_names == set(expected.values())
