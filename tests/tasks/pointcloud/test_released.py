"""Point-BERT with LLaMA equals its released code (tools/dev/released/pointbert.py)."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import Tensor, nn

from lm4ve.tasks.pointcloud import (
    PointCloudDataSample,
    RandomScaleTranslate,
    SamplePoints,
)
from lm4ve.tasks.pointcloud.converters import convert_pointbert
from tests.helpers.pointcloud import given
from tests.helpers.stored_results import read_part, text_of
from tests.helpers.tasks import CONFIGS
from tools.dev.released.seeding import gradient_marks, seeded_weights

CONFIG = CONFIGS / 'pointcloud/pointbert_scanobjectnn-hardest.py'
#: Sums of thousands of products in float64; with a block, whose norms compute in float32
#: also then, some hundred roundings of that.
BOUNDS = dict(plain=1e-9, llama=1e-5)


def scan(folder: Path, split: str) -> tuple[dict, list]:
    """Write the one cloud of a split; return its entry in the config's data, and the pipeline."""
    cfg = Config.fromfile(CONFIG)
    part, loader = dict(
        train=('training', cfg.train_dataloader), test=('test', cfg.test_dataloader)
    )[split]
    path = folder / f'main_split/{part}_objectdataset_augmentedrot_scale75.h5'
    path.parent.mkdir()
    with h5py.File(path, 'w') as file:
        file['data'] = given.cloud()[None]
        file['label'] = np.zeros(1, dtype=np.int64)
    dataset = DATASETS.build(dict(loader.dataset, data_root=str(folder), pipeline=[]))
    return dataset[0], Compose(loader.dataset.pipeline).transforms


def indices(points: np.ndarray) -> list[int]:
    """Return which points of the cloud these are, in their order."""
    number = {point.tobytes(): i for i, point in enumerate(given.cloud())}
    return [number[point.tobytes()] for point in points]


def epochs_of(entry: dict, transforms: list) -> Iterator[tuple[list[int], Tensor]]:
    """Yield which points each epoch of a training takes, and its input."""
    for _ in range(given.EPOCHS):
        results = dict(entry)
        picks = []
        for transform in transforms:
            if isinstance(transform, RandomScaleTranslate):
                picks = indices(results['points'])
            results = transform(results)
        yield picks, results['inputs']


def shuffle(results: dict) -> dict:
    """Shuffle the points, as the release does before it picks from the first one on."""
    return dict(results, points=np.random.permutation(results['points']))


def seen_after(epochs: list[list[int]]) -> list[int]:
    """Return how many points of the cloud were seen after each epoch."""
    seen: set[int] = set()
    counts = []
    for epoch in epochs:
        seen.update(epoch)
        counts.append(len(seen))
    return counts


def test_training_from_the_releases_starts_takes_its_points_in_30_epochs(tmp_path):
    entry, transforms = scan(tmp_path, 'train')
    farthest = next(t for t in transforms if isinstance(t, SamplePoints))
    assert farthest.start == 'random'
    farthest.start = 'first'
    np.random.seed(given.SEED)
    epochs = []
    inputs = []
    for picks, points in epochs_of(entry, [shuffle, *transforms]):
        epochs.append(picks)
        inputs.append(points)
    released = read_part('pointbert', 'train')
    assert epochs[:2] == released['picks'].tolist()
    # The release scales and shifts in float32, we round once at the end.
    np.testing.assert_allclose(inputs[0], released['input'], atol=3e-7, rtol=0)
    counts = seen_after(epochs)
    assert counts == released['seen'].tolist()
    assert counts[-1] == 2020


def test_training_from_random_starts_sees_as_many_points_as_the_release(tmp_path):
    entry, transforms = scan(tmp_path, 'train')
    np.random.seed(given.SEED)
    epochs = [picks for picks, _ in epochs_of(entry, transforms)]
    released = read_part('pointbert', 'train')['seen']
    # Over 20 seeds the largest difference of a count is 55; one start would see 1,200.
    np.testing.assert_allclose(seen_after(epochs), released, atol=60, rtol=0)


def test_testing_takes_the_same_points_as_the_release(tmp_path):
    results, transforms = scan(tmp_path, 'test')
    for transform in transforms:
        results = transform(results)
    assert (
        indices(results['inputs'].numpy())
        == read_part('pointbert', 'test')['picks'].tolist()
    )


def write_llama(folder: Path, weights: dict[str, np.ndarray]) -> str:
    """Write a LLaMA as Meta does that has the released block's weights as its last layer."""
    folder.mkdir()
    state = {}
    for name, weight in weights.items():
        if name.startswith('llama.layers.0.'):
            place = name.removeprefix('llama.layers.0.')
            state[f'layers.1.{place}'] = torch.from_numpy(weight).float()
            # The layer in front is not read.
            state[f'layers.0.{place}'] = torch.zeros(weight.shape)
    torch.save(state, folder / 'consolidated.00.pth')
    names = ('dim', 'multiple_of', 'n_heads', 'n_layers', 'norm_eps', 'vocab_size')
    params = {name: given.LLAMA[name] for name in names}
    (folder / 'params.json').write_text(json.dumps(params))
    return str(folder)


def build(part: str, folder: Path) -> nn.Module:
    """Build our model of a part in float64, with the seeded weights of the release."""
    weights = seeded_weights(text_of(read_part('pointbert', part)['shapes']))
    sizes = dict(plain=given.REAL, llama=given.SMALL)[part]
    width = sizes['trans_dim']
    llm = None
    neck = None
    if part == 'llama':
        weights['llama.norm.weight'][:] = 1
        llm = write_llama(folder / 'llm', weights)
        neck = dict(
            type='LLMBlockNeck',
            in_channels=width,
            norm_cfg=dict(type='LN', eps=1e-5),
            block=dict(type='LLMBlock', checkpoint=llm),
        )
    cfg = Config.fromfile(CONFIG).model
    cfg.checkpoint = None
    cfg.neck = neck
    cfg.backbone.update(
        embed_dims=width,
        depth=sizes['depth'],
        num_heads=sizes['num_heads'],
        num_groups=sizes['num_group'],
        group_size=sizes['group_size'],
        encoder_dims=sizes['encoder_dims'],
        final_norm=neck is None,
        drop_path_rate=0.0,
    )
    # The release has 40 outputs for 15 classes; ModelNet40's config has 40.
    modelnet40 = Config.fromfile(CONFIGS / 'pointcloud/pointbert_modelnet40-1k.py')
    cfg.head.update(modelnet40.model.head, in_channels=width, dropout=0.0)
    model = MODELS.build(cfg)
    tensors = {name: torch.from_numpy(weight) for name, weight in weights.items()}
    state = convert_pointbert(tensors, llm=llm)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all('num_batches_tracked' in name for name in missing), missing
    return model.double()


def released_name(name: str) -> str:
    """Return the name that one of our parameters has in the release."""
    name = name.replace('backbone.blocks.', 'blocks.blocks.').replace('backbone.', '')
    name = name.replace('head.layers.', 'cls_head_finetune.')
    name = name.replace('neck.norm.', 'norm.')
    name = name.replace('neck.mapper_in.', 'llama_dim_mapper1.')
    return name.replace('neck.mapper_out.', 'llama_dim_mapper2.')


def samples() -> list[PointCloudDataSample]:
    return [PointCloudDataSample(gt_label=torch.tensor([i])) for i in given.LABELS]


@pytest.mark.parametrize('part', BOUNDS)
def test_network_losses_and_gradients_are_the_released_ones(part, tmp_path):
    def close(found: Tensor, name: str) -> None:
        bound = BOUNDS[part]
        np.testing.assert_allclose(
            found.detach().numpy(), released[name], atol=bound, rtol=bound, err_msg=name
        )

    released = read_part('pointbert', part)
    model = build(part, tmp_path)
    points = torch.from_numpy(given.points())
    close(model.eval()(points), 'test_logits')
    model.train()
    logits = model(points)
    close(logits, 'logits')
    plain = nn.functional.cross_entropy(logits, torch.tensor(given.LABELS))
    close(plain, 'plain_loss')
    loss = model(points, samples(), mode='loss')['loss']
    close(loss, 'loss')
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[released_name(name)] = parameter.grad.numpy()
    marks = gradient_marks(gradients)
    found = np.stack([marks[name] for name in sorted(marks)])
    close(torch.from_numpy(found), 'gradients')


def test_every_parameter_starts_as_wide_as_in_the_release():
    cfg = Config.fromfile(CONFIG).model
    cfg.checkpoint = None
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    parameters = {released_name(name): p for name, p in model.named_parameters()}
    expected = dict(
        zip(
            text_of(read_part('pointbert', 'start')['names']),
            read_part('pointbert', 'start')['deviations'].tolist(),
            strict=True,
        )
    )
    assert parameters.keys() == expected.keys()
    for name, deviation in expected.items():
        values = parameters[name].detach().double()
        found = values.square().mean().sqrt().item()
        # Both are estimates. A normal distribution's has the relative standard error
        # sqrt(1 / 2n), a uniform one's a smaller one.
        error = 5 * math.sqrt(2) * math.sqrt(1 / (2 * values.numel()))
        assert found == pytest.approx(deviation, rel=error), name
