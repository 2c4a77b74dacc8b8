"""Run the released Point-BERT with LLaMA, and store what it gives, for the tests.

Repository and commit: https://github.com/ziqipang/LM4VisualEncoding,
e34e91983459c2c00a379ed82128e3d464424412. FOLDER is its ``pointcloud_classification``.

    pip install easydict h5py timm==1.0.31
    python -m tools.dev.released.pointbert FOLDER tests/data/released/pointbert.npz

What is stored:

- ``train/``: what ``run_net`` gives the network in 30 epochs on one cloud of
  ScanObjectNN's format: the indices of the points in the first epochs (``picks``), how
  many points were seen after each epoch (``seen``), and the first input;
- ``test/``: the points that ``test`` gives the network;
- ``plain/``: Point-BERT with the sizes of ``PointTransformer_hardest.yaml``, and
  ``llama/``: a small one with a small LLaMA: logits in training and in tests, both
  losses, and two numbers of each gradient;
- ``start/``: the standard deviations of the parameters of the former model when it is
  made.

Cloud, inputs and weights follow from seeds (``tests/helpers/pointcloud/given.py``,
``seeding.py``). Networks are computed in float64, without dropout and stochastic depth.
Two CUDA packages do not run here: :func:`pointnet2_utils` stands for pointnet2_ops, by
the loop of its kernel, and ``knn_cuda`` is not used by these models.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from easydict import EasyDict
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from tests.helpers.pointcloud import given
from tools.dev.released.seeding import gradient_marks, seeded_weights

#: Packages that the released code imports for other trainings -> names in them.
UNUSED = {
    'knn_cuda': ('KNN',),
    'open3d': (),
    'extensions': (),
    'extensions.chamfer_dist': ('ChamferDistanceL1', 'ChamferDistanceL2'),
    'extensions.emd': ('emd',),
}
#: Epochs whose points are stored.
STORED_EPOCHS = 2
#: The names of its folders, which are also ours.
FOLDERS = ('datasets', 'models', 'tools', 'utils')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='pointcloud_classification')
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    picks: list[np.ndarray] = []
    stored = {}
    with (
        released_modules(args.folder.resolve(), picks),
        tempfile.TemporaryDirectory() as data,
    ):
        stored.update(run_pipelines(Path(data), picks))
        torch.set_default_dtype(torch.float64)
        # The block ends with `.float()`, which would round here.
        Tensor.float = Tensor.double
        stored.update(run_network('plain', given.REAL))
        stored.update(run_network('llama', given.SMALL))
        stored.update(initial_deviations())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, **stored)
    print(f'{args.out}: {args.out.stat().st_size / 1000:.0f} kB')


@contextmanager
def released_modules(folder: Path, picks: list[np.ndarray]) -> Iterator[None]:
    """Import from the released code, on the CPU.

    Args:
        folder (Path): ``pointcloud_classification``.
        picks (list[np.ndarray]): Gets the points that each call of ``gather_operation``
            takes, ``[B, num, 3]``.
    """
    for name, attributes in UNUSED.items():
        module = types.ModuleType(name)
        for attribute in attributes:
            setattr(module, attribute, lambda *args, **kwargs: None)
        sys.modules[name] = module
    package = types.ModuleType('pointnet2_ops')
    package.pointnet2_utils = pointnet2_utils(picks)
    sys.modules['pointnet2_ops'] = package
    Tensor.cuda = nn.Module.cuda = lambda self, *args, **kwargs: self
    ours = {}
    for name in list(sys.modules):
        if name.partition('.')[0] in FOLDERS:
            ours[name] = sys.modules.pop(name)
    before = os.getcwd()
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        sys.modules.update(ours)


def pointnet2_utils(picks: list[np.ndarray]) -> types.SimpleNamespace:
    """Return what stands for the module of CUDA operators.

    Args:
        picks (list[np.ndarray]): See :func:`released_modules`.
    """

    def gather_operation(features: Tensor, index: Tensor) -> Tensor:
        """``[B, C, N]`` by ``[B, num]`` gives ``[B, C, num]``."""
        index = index[:, None].expand(-1, features.shape[1], -1)
        gathered = features.gather(2, index)
        picks.append(gathered.transpose(1, 2).detach().numpy().copy())
        return gathered

    return types.SimpleNamespace(
        furthest_point_sample=furthest_point_sample, gather_operation=gather_operation
    )


def furthest_point_sample(points: Tensor, num: int) -> Tensor:
    """Pick as the kernel does: it passes over points within 0.032 of the origin."""
    batch, count, _ = points.shape
    # Passed points keep a distance below all others.
    is_passed = points.square().sum(-1) <= 1e-3
    nearest = points.new_full((batch, count), 1e10).masked_fill(is_passed, -1)
    picked = torch.zeros(batch, num, dtype=torch.int64)
    rows = torch.arange(batch)
    for i in range(1, num):
        last = points[rows, picked[:, i - 1]]
        distance = (points - last[:, None]).square().sum(-1)
        nearest = torch.minimum(nearest, distance).masked_fill(is_passed, -1)
        picked[:, i] = nearest.argmax(1)
    return picked


class Recorder(nn.Module):
    """A classifier that does nothing but keep its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))
        self.inputs: list[np.ndarray] = []

    def forward(self, points: Tensor) -> Tensor:
        self.inputs.append(points.numpy().copy())
        return points.mean((1, 2))[:, None] * self.weight

    def get_loss_acc(
        self, logits: Tensor, labels: Tensor, smoothing: bool
    ) -> tuple[Tensor, Tensor]:
        return logits.sum(), torch.zeros(1)


def run_pipelines(folder: Path, picks: list[np.ndarray]) -> dict[str, Any]:
    """Train and test on one cloud, and return the points that the network gets.

    Args:
        folder (Path): Where the data set and what the training writes belong.
        picks (list[np.ndarray]): See :func:`released_modules`.
    """
    runner = importlib.import_module('tools.runner_BERT_finetune')
    cloud = given.cloud()
    for split in ('training', 'test'):
        path = folder / f'{split}_objectdataset_augmentedrot_scale75.h5'
        with h5py.File(path, 'w') as file:
            file['data'] = cloud[None]
            file['label'] = np.zeros(1, dtype=np.int64)
    config = load_config('PointLLaMa_hardest', folder)
    config.max_epoch = given.EPOCHS - 1
    args = EasyDict(
        log_name='parity',
        distributed=False,
        resume=False,
        ckpts=None,
        use_gpu=False,
        local_rank=0,
        num_workers=0,
        val_freq=given.EPOCHS + 1,
        label_smoothing=True,
        experiment_path=str(folder),
    )
    recorder = Recorder()
    runner.builder.model_builder = lambda _: recorder
    runner.builder.CosineLRScheduler = cosine_schedule
    np.random.seed(given.SEED)
    runner.run_net(args, config)
    trained = [indices(cloud, chosen[0]) for chosen in picks]
    seen: set[int] = set()
    counts = []
    for epoch in trained:
        seen.update(epoch.tolist())
        counts.append(len(seen))
    first_input = recorder.inputs[0][0]
    recorder.inputs.clear()
    _, loader = runner.builder.dataset_builder(args, config.dataset.test)
    runner.test_vote = lambda *args, **kwargs: 0.0
    runner.test(recorder, loader, args, config)
    return {
        'train/picks': np.stack(trained[:STORED_EPOCHS]).astype(np.int16),
        'train/seen': np.array(counts),
        'train/input': first_input,
        'test/picks': indices(cloud, recorder.inputs[0][0]).astype(np.int16),
    }


def cosine_schedule(
    optimizer: Any, t_mul: float, decay_rate: float, **options: Any
) -> CosineLRScheduler:
    """Make timm's schedule from the names that its arguments had."""
    return CosineLRScheduler(
        optimizer, cycle_mul=t_mul, cycle_decay=decay_rate, **options
    )


def load_config(name: str, folder: Path) -> EasyDict:
    """Load a config of ScanObjectNN for data in a folder, with batches of one."""
    config = importlib.import_module('utils.config').cfg_from_yaml_file(
        f'configs/ScanObjectNN_models/{name}.yaml'
    )
    for part in config.dataset.values():
        part._base_.ROOT = str(folder)
        part.others.bs = 1
    return config


def indices(cloud: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return which points of the cloud these are, in their order."""
    number = {point.tobytes(): i for i, point in enumerate(cloud)}
    return np.array([number[point.tobytes()] for point in points])


def build(sizes: dict[str, Any]) -> nn.Module:
    """Build the released network, with mappers as wide as the small LLaMA."""
    models = importlib.import_module('models.Point_BERT')
    model = models.PointTransformer(EasyDict(sizes))
    if sizes.get('use_llama'):
        # The release has 4096 here.
        width, inner = sizes['trans_dim'], sizes['llama_cfg']['dim']
        model.llama_dim_mapper1 = nn.Linear(width, inner, bias=False)
        model.llama_dim_mapper2 = nn.Linear(inner, width, bias=False)
    return model


def run_network(part: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Return logits, losses and marks of gradients of a network with seeded weights."""
    model = build(dict(sizes, drop_path_rate=0.0))
    shapes = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            shapes[name] = list(tensor.shape)
    weights = seeded_weights(shapes)
    # The norm behind the layers is never loaded: its gain stays 1.
    weights.pop('llama.norm.weight', None)
    state = {name: torch.from_numpy(values) for name, values in weights.items()}
    model.load_state_dict(state, strict=False)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    points = torch.from_numpy(given.points())
    labels = torch.tensor(given.LABELS)
    stored = {'shapes': np.frombuffer(json.dumps(shapes).encode(), np.uint8)}
    stored['test_logits'] = model.eval()(points).detach().numpy()
    logits = model.train()(points)
    stored['logits'] = logits.detach().numpy()
    plain_loss, _ = model.get_loss_acc(logits, labels, smoothing=False)
    loss, _ = model.get_loss_acc(logits, labels, smoothing=True)
    stored['plain_loss'] = plain_loss.detach().numpy()
    stored['loss'] = loss.detach().numpy()
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.numpy()
    marks = gradient_marks(gradients)
    stored['gradients'] = np.stack([marks[name] for name in sorted(marks)])
    return {f'{part}/{name}': value for name, value in stored.items()}


def initial_deviations() -> dict[str, Any]:
    """Return the names of a new model's parameters, and their standard deviations."""
    torch.manual_seed(0)
    parameters = dict(build(given.REAL).named_parameters())
    names = json.dumps(list(parameters)).encode()
    deviations = []
    for parameter in parameters.values():
        deviations.append(parameter.detach().square().mean().sqrt().item())
    return {
        'start/names': np.frombuffer(names, np.uint8),
        'start/deviations': np.array(deviations, dtype=np.float32),
    }


if __name__ == '__main__':
    main()
