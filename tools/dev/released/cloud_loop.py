"""Train a small Point-BERT with LLaMA by the released loop, and store what it gives.

Repository and commit: https://github.com/ziqipang/LM4VisualEncoding,
e34e91983459c2c00a379ed82128e3d464424412. FOLDER is its ``pointcloud_classification``.

    pip install easydict h5py timm==0.4.12
    python -m tools.dev.released.cloud_loop FOLDER tests/data/released/cloud_loop.npz

``run_net`` runs with ``PointLLaMa_hardest.yaml`` as released, but for the sizes: it makes
optimizer and schedule, and trains. (It asks for timm 0.4.5, which no present torch imports;
the schedule of 0.4.12 is the same file.) What is stored of 30 steps, three in each of ten
epochs:

- ``losses``, ``norms`` and ``rates``: of each step, the loss, the norm of the gradients
  before they are clipped, and the learning rate of each of the optimizer's groups;
- ``groups``: names, rate and weight decay of these groups;
- ``weights``: marks of how far the training has moved each parameter, and the statistics
  of the batch norms;
- ``schedule``: the rates of the groups in each of the yaml's 301 epochs.

Batches, as they are after augmentation, and weights follow from seeds
(``tests/helpers/pointcloud/given.py``, ``seeding.py``). Networks are computed in float64,
without dropout and stochastic depth. What replaces the CUDA packages is said in
``pointbert.py``.
"""

import argparse
import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from easydict import EasyDict
from torch import Tensor, nn

from tests.helpers.pointcloud import given
from tools.dev.released.loops import (
    as_bytes,
    copy_tensors,
    describe_groups,
    kept,
    marks_of_changes,
    shapes_of,
)
from tools.dev.released.pointbert import build, load_config, released_modules
from tools.dev.released.seeding import seeded_weights

#: In the place of the loop's own sampling, whose result :meth:`Training.augment` replaces.
NO_SAMPLING = SimpleNamespace(
    furthest_point_sample=lambda points, num: torch.zeros(len(points), num),
    gather_operation=lambda points, indices: points,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='pointcloud_classification')
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    out = args.out.resolve()
    torch.set_default_dtype(torch.float64)
    # The block ends with `.float()`, which would round here.
    Tensor.float = Tensor.double
    with (
        released_modules(args.folder.resolve(), []),
        tempfile.TemporaryDirectory() as folder,
    ):
        stored = run_steps(Path(folder))
        stored['schedule'] = follow_schedule(Path(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **stored)
    print(f'{out}: {out.stat().st_size / 1000:.0f} kB')


def arguments(folder: Path) -> EasyDict:
    """Return the arguments of ``train.sh`` with the smoothing that the paper has."""
    return EasyDict(
        log_name='loop',
        distributed=False,
        resume=False,
        ckpts=None,
        use_gpu=False,
        local_rank=0,
        val_freq=1000,
        label_smoothing=True,
        experiment_path=str(folder),
    )


def run_steps(folder: Path) -> dict[str, Any]:
    """Train 30 steps, and return what is stored of them."""
    config = load_config('PointLLaMa_hardest', folder)
    # The release trains an epoch more than both of these say.
    config.max_epoch = given.LOOP_EPOCHS - 1
    config.scheduler.kwargs.epochs = given.LOOP_EPOCHS - 1
    config.scheduler.kwargs.initial_epochs = given.WARMUP_EPOCHS
    model = build_model()
    before = copy_tensors(model)
    training = Training(model, given.LOOP_EPOCHS, given.STEPS_PER_EPOCH)
    training.run(folder, config)
    optimizer, _ = training.made[0]
    # The block is frozen.
    trained = {k: v for k, v in before.items() if not k.startswith('llama.')}
    return dict(
        shapes=as_bytes(shapes_of(model)),
        losses=np.array([loss.item() for loss, _ in training.losses]),
        norms=np.array([norm.item() for norm in training.norms]),
        rates=np.array(training.rates),
        groups=as_bytes(describe_groups(optimizer, model)),
        weights=marks_of_changes(trained, copy_tensors(model)),
    )


def follow_schedule(folder: Path) -> np.ndarray:
    """Return the rates of the groups in each epoch that the released yaml trains."""
    config = load_config('PointLLaMa_hardest', folder)
    training = Training(build_model(), config.max_epoch + 1, steps_per_epoch=1)
    training.run(folder, config)
    return np.array(training.rates)


class Training:
    """A training of the given batches, and what it gives.

    Args:
        model (nn.Module): The network.
        epochs, steps_per_epoch (int): How long it lasts.

    Attributes:
        made (list): The optimizer with its schedule.
        losses, norms, rates (list): Of each step: loss with accuracy, the norm of the
            gradients before they are clipped, and the rates of the groups.
    """

    def __init__(self, model: nn.Module, epochs: int, steps_per_epoch: int) -> None:
        self.model = model
        self.steps_per_epoch = steps_per_epoch
        batches = list(given.batches(epochs * steps_per_epoch))
        self.augmented = iter([points for points, _ in batches])
        self.labels = iter([labels for _, labels in batches])
        self.made: list[tuple[Any, Any]] = []
        self.losses: list[tuple[Tensor, Tensor]] = []
        self.norms: list[Tensor] = []
        self.rates: list[list[float]] = []

    def run(self, folder: Path, config: EasyDict) -> None:
        """Train by the released loop.

        Args:
            folder (Path): Where it writes checkpoints.
            config (EasyDict): The released config.
        """
        runner = importlib.import_module('tools.runner_BERT_finetune')
        builder = runner.builder
        utils = torch.nn.utils
        make, clip = builder.build_opti_sche, utils.clip_grad_norm_
        self.model.get_loss_acc = kept(self.model.get_loss_acc, self.losses)
        with (
            patch.object(builder, 'model_builder', lambda _: self.model),
            patch.object(builder, 'dataset_builder', lambda *_: (None, self)),
            patch.object(builder, 'build_opti_sche', kept(make, self.made)),
            patch.object(runner, 'pointnet2_utils', NO_SAMPLING),
            patch.object(runner, 'train_transforms', self.augment),
            patch.object(utils, 'clip_grad_norm_', kept(clip, self.norms)),
        ):
            runner.run_net(arguments(folder), config)

    def __len__(self) -> int:
        """Return the batches of an epoch, as a loader does."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        """Yield an epoch of the given labels, with points that nothing uses."""
        for _ in range(self.steps_per_epoch):
            points = torch.zeros(given.BATCH, 1024, 3)
            yield None, None, (points, torch.tensor(next(self.labels)))

    def augment(self, _: Tensor) -> Tensor:
        """Return the next batch as it is after augmentation, and keep the rates."""
        optimizer, _ = self.made[0]
        self.rates.append([group['lr'] for group in optimizer.param_groups])
        return torch.from_numpy(next(self.augmented))


def build_model() -> nn.Module:
    """Build the small network with seeded weights."""
    model = build(dict(given.SMALL, drop_path_rate=0.0))
    state = model.state_dict()
    for name, values in seeded_weights(shapes_of(model)).items():
        # The norm behind the layers is never loaded: its gain stays 1.
        if name != 'llama.norm.weight':
            state[name] = torch.from_numpy(values)
    model.load_state_dict(state)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


if __name__ == '__main__':
    main()
