"""The released recipe of MedVisionLlama gives what its released code gives.

The file of results was made by ``tools/dev/released/medvisionllama.py``.
"""

import json

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.transforms import Compose
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS
from torch.optim.lr_scheduler import ReduceLROnPlateau

import llm4seg as m
from llm4seg.converters import VOLUME_VIT_RULES, convert_medical
from llm4seg.structures import VolumeDataSample
from lm4ve.convert.key_rules import Rules, rename
from lm4ve.errors import CheckpointError, UserError
from lm4ve.runner.command_line import build_runner
from lm4ve.runner.config import read_config
from tests.helpers.closeness import (
    assert_equal_but_for_rounding,
    rounding_bound,
    sums_of,
)
from tests.helpers.medical import medvisionllama as given
from tests.helpers.medical.files import write_decathlon, write_volume
from tests.helpers.necks.initial_values import (
    TORCH_DEFAULT,
    assert_initial_values,
    mapper_layers,
)
from tests.helpers.stored_results import marks_of, read_stored, released_state
from tests.helpers.tasks import FOLDERS

NAME = 'vit3d_llama-3.1-8b-released_brain-tumour.py'
STORED = read_stored('medvisionllama')


def config(name=NAME):
    return read_config(FOLDERS['medical'] / name)


# ----------------------------------------------------------------------------- inputs
def prepare(pipeline, folder):
    """Run a pipeline on the volume that the released code was given; return image and label."""
    for step in pipeline:
        if step.type == 'lm4ve.ZoomVolume':
            step.size = given.IMAGE_SIZE
    image, label = given.write_brain(folder)
    packed = Compose(pipeline)(dict(img_path=image, seg_path=label))
    return packed['inputs'].numpy(), packed['data_samples'].gt_seg.numpy()


def assert_same_image(found, expected, folder):
    """Compare up to the 1e-5 that the released code adds to range and distance, after z-scores."""
    raw = nibabel.load(folder / 'image.nii.gz').get_fdata()
    added = 1e-5 * raw.std() / np.ptp(raw)
    rounding = 8 * np.finfo(np.float32).eps
    np.testing.assert_allclose(found, expected, rtol=0, atol=added + rounding)


def test_a_volume_is_prepared_as_released(tmp_path):
    pipeline = config().test_dataloader.dataset.pipeline
    image, label = prepare(pipeline, tmp_path)
    assert_same_image(image, STORED['image'], tmp_path)
    np.testing.assert_array_equal(label, STORED['label'])


def test_a_volume_and_its_label_turn_as_released(tmp_path):
    pipeline = config().train_dataloader.dataset.datasets[1].pipeline
    np.random.seed(given.DRAWS)
    image, label = prepare(pipeline, tmp_path)
    assert_same_image(image, STORED['rotated_image'], tmp_path)
    np.testing.assert_array_equal(label, STORED['rotated_label'])


def test_intensities_change_as_released(tmp_path):
    """By the factors that the released code drew: MONAI has a generator of its own."""
    pipeline = config().train_dataloader.dataset.datasets[2].pipeline
    steps = [s for s in pipeline if s.get('name', '').startswith('RandScale')]
    for step, factor in zip(steps, STORED['factors'], strict=True):
        assert step.factors == 0.1 and step.prob == 1
        step.factors = (factor - 1, factor - 1)
    image, label = prepare(pipeline, tmp_path)
    assert_same_image(image, STORED['changed_image'], tmp_path)
    np.testing.assert_array_equal(label, STORED['changed_label'])


def test_an_epoch_has_each_volume_three_times(tmp_path):
    write_decathlon(tmp_path)
    cfg = config().train_dataloader.dataset
    plain = config('vit3d_llama-3.1-8b_brain-tumour.py').train_dataloader.dataset
    for dataset in (plain, *cfg.datasets):
        dataset.data_root = str(tmp_path)
    parts = DATASETS.build(cfg)
    paths = [parts.get_data_info(i)['img_path'] for i in range(len(parts))]
    others = DATASETS.build(plain)
    once = {others.get_data_info(i)['img_path'] for i in range(len(others))}
    assert sorted(paths) == sorted([*once, *once, *once])


def test_a_zoomed_volume_keeps_its_corners_in_their_places(tmp_path):
    image = write_volume(tmp_path / 'a.nii.gz', np.zeros((6, 5, 4), np.float32))
    load = m.LoadVolume(channels=1, num_classes=2)
    read = load(dict(img_path=image))
    before = read['img'].affine
    after = m.ZoomVolume((11, 9, 7))(m.ReverseAxes()(read))['img']
    assert after.shape == (1, 11, 9, 7)
    # The axes are reversed: the last voxel of a file's axes stays where it was.
    last = before @ torch.tensor([5.0, 4.0, 3.0, 1.0], dtype=before.dtype)
    moved = after.affine @ torch.tensor([10.0, 8.0, 6.0, 1.0], dtype=before.dtype)
    torch.testing.assert_close(moved, last)
    spacing = after.affine[:3, :3].norm(dim=0)
    torch.testing.assert_close(spacing, spacing.new_tensor([0.6, 0.5, 5 / 6]))


@pytest.mark.parametrize(
    'transform, words',
    [
        (lambda: m.RotateVolume(0), 'degrees=0'),
        (lambda: m.RotateVolume(5, image_axes=(1, 1)), 'image_axes'),
        (lambda: m.RotateVolume(5, label_axes=(1, 3)), 'label_axes'),
        (lambda: m.SelectChannel(-1), 'channel=-1'),
        (lambda: m.SelectChannel(4)(dict(img=torch.zeros(4, 2, 2, 2))), 'channel=4'),
    ],
)
def test_a_step_that_cannot_be_is_refused(transform, words):
    with pytest.raises(UserError, match=words):
        transform()


# ---------------------------------------------------------------------------- network
@pytest.fixture(scope='module')
def llm(tmp_path_factory):
    """A folder of Meta's layout with the released network's only layer."""
    folder = tmp_path_factory.mktemp('llm')
    layer = {}
    for name, tensor in released_state(STORED['shapes']).items():
        if name.startswith('llm.'):
            layer[name.removeprefix('llm.')] = tensor.float()
    torch.save(layer, folder / 'consolidated.00.pth')
    sizes = dict(dim=given.WIDTH, n_heads=given.HEADS, n_kv_heads=given.KV_HEADS)
    fields = dict(multiple_of=16, n_layers=1, norm_eps=1e-5, vocab_size=-1)
    (folder / 'params.json').write_text(json.dumps(sizes | fields))
    return str(folder)


def build(llm, name=NAME):
    """Build the model of a config, small and without dropout."""
    cfg = config(name).model
    cfg.backbone.backbone.update(
        image_size=given.IMAGE_SIZE,
        patch_size=given.PATCH_SIZE,
        embed_dims=given.EMBED_DIMS,
        depth=given.DEPTH,
        dropout=0.0,
    )
    cfg.backbone.neck.in_channels = given.EMBED_DIMS
    cfg.backbone.neck.block.update(checkpoint=llm, dtype='float32')
    return MODELS.build(cfg)


def convert(llm):
    state = released_state(STORED['shapes'])
    return convert_medical(state, llm, unmerged=True)


def our_names():
    """Return our name of each parameter that trains, by its released one."""
    rules = Rules(renames=VOLUME_VIT_RULES.renames)
    names = {}
    for name in STORED['parameters'].tolist():
        (names[name],) = rename({name: torch.zeros(0)}, rules)
    return names


def test_network_loss_and_gradients_are_the_released_ones(llm):
    """With eight heads of queries and two of keys and values.

    Norms of a block compute in fp32, where the released code was run in fp64.
    """
    model = build(llm)
    model.load_state_dict(convert(llm), strict=True)
    model.double().train()
    images = np.stack([STORED['image'], STORED['rotated_image']])
    samples = []
    for label in (STORED['label'], STORED['rotated_label']):
        samples.append(VolumeDataSample(gt_seg=torch.from_numpy(label)))
    inputs = torch.from_numpy(images).double()

    found = model(inputs)[:, 0].sigmoid()
    expected = torch.from_numpy(STORED['probabilities'])
    assert_equal_but_for_rounding(found, expected, model, torch.float32)

    loss = model(inputs, samples, 'loss')['loss']
    expected = torch.from_numpy(STORED['loss'])
    assert_equal_but_for_rounding(loss, expected, model, torch.float32)

    loss.backward()
    names = our_names()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(names.values()) == trained
    marks = marks_of(model, names)
    bound = rounding_bound(torch.float32, sums_of(model))
    for found, expected in zip(marks, STORED['gradients'], strict=True):
        error = np.linalg.norm(found - expected)
        assert error <= bound * np.linalg.norm(expected)


def test_frozen_mappers_start_as_torch_makes_them_and_their_biases_train(llm):
    model = build(llm)
    model.init_weights()
    neck = model.backbone.llm_neck
    assert_initial_values(neck, TORCH_DEFAULT)
    for layer in mapper_layers(neck).values():
        assert layer.bias.requires_grad and not layer.weight.requires_grad


def test_a_converted_file_is_refused_by_the_sound_config(llm):
    model = build(llm, 'vit3d_llama-3.1-8b_brain-tumour.py')
    with pytest.raises(CheckpointError, match=r"block.kv_heads='tiled'"):
        model.load_state_dict(convert(llm))


# ------------------------------------------------------------------ loss and schedule
def test_a_thresholded_dice_is_a_number_without_a_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, 4, 4, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, logits.shape, generator=generator).double()
    logits.requires_grad_()
    loss = m.DiceBCELoss(2, threshold=0.5)(logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    entropy = F.binary_cross_entropy_with_logits(logits, labels)
    (of_entropy,) = torch.autograd.grad(0.5 * entropy, logits)
    torch.testing.assert_close(gradient, of_entropy)
    found = (logits > 0).double()
    dice = (2 * (found * labels).sum() + 1) / (found.sum() + labels.sum() + 1)
    torch.testing.assert_close(loss, 0.5 * entropy + 0.5 * (1 - dice))
    # Without the threshold both halves train.
    soft = m.DiceBCELoss(2)(logits, labels)
    (of_soft,) = torch.autograd.grad(soft, logits)
    assert not torch.allclose(of_soft, of_entropy)


def test_the_rate_falls_by_the_loss_of_training_as_released():
    """The released code calls torch's schedule (scripts/train.py:131 and 192)."""
    losses = np.random.default_rng(0).normal(1, 0.01, 60).tolist()
    rates = []
    for kind in ('ours', 'theirs'):
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
        if kind == 'ours':
            cfg = dict(config().param_scheduler, optimizer=optimizer)
            schedule = PARAM_SCHEDULERS.build(cfg)
            steps = [{'train/loss': loss} for loss in losses]
        else:
            schedule = ReduceLROnPlateau(optimizer, 'min', factor=0.5, patience=10)
            steps = losses
        found = []
        for step in steps:
            schedule.step(step)
            found.append(optimizer.param_groups[0]['lr'])
        rates.append(found)
    assert rates[0] == rates[1] and len(set(rates[0])) > 2


@pytest.mark.bitwise
def test_the_checkpoint_with_the_lowest_loss_of_training_is_kept(shrinker, tmp_path):
    runner = build_runner(shrinker.load(NAME, tmp_path, epochs=3))
    runner.train()
    steps = len(runner.train_dataloader)
    losses, _ = runner.message_hub.get_scalar('train/loss').data
    means = losses.reshape(3, steps).mean(1)
    best = 1 + int(means.argmin())
    (file,) = tmp_path.glob('best_train_loss_*.pth')
    assert file.name == f'best_train_loss_epoch_{best}.pth'
    assert runner.message_hub.get_info('best_score') == pytest.approx(means.min())
