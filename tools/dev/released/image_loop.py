"""Train a small ViT-LLaMA by the released loop of images, and store what it gives.

Repository and commit: https://github.com/ziqipang/LM4VisualEncoding,
e34e91983459c2c00a379ed82128e3d464424412. FOLDER is its ``image_classification``.

    pip install einops kornia timm==0.4.12
    python -m tools.dev.released.image_loop FOLDER tests/data/released/image_loop.npz

``main`` of ``main.py`` runs as its README's command has it, but for the sizes: it makes
optimizer, schedule, loss, Mixup and average, and calls ``train_one_epoch``. What is
stored of 30 steps, three in each of ten epochs:

- ``draws``: of each step, whether it is CutMix (1), the parameter of the distribution,
  the number drawn from it, and the centre of the box (0 for Mixup);
- ``order``: the pictures of the first batches, which are those of every epoch;
- ``losses`` and ``rates``: of each step, the loss and the learning rate of each of the
  optimizer's groups;
- ``groups``: names, rate and weight decay of these groups;
- ``weights`` and ``average``: marks of how far the training has moved each parameter, and
  its average;
- ``schedule``: the rates of the groups in each of the README's 300 epochs.

Pictures and weights follow from seeds (``tests/helpers/image/given.py``, ``seeding.py``).
Everything is computed in float64, without stochastic depth. On a CPU, autocast and the
scaler of gradients switch themselves off, and ``torch.cuda.synchronize`` does nothing here.
"""

import argparse
import importlib
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.helpers.image import given
from tools.dev.released.loops import (
    as_bytes,
    copy_tensors,
    describe_groups,
    kept,
    marks_of_changes,
    shapes_of,
)
from tools.dev.released.seeding import seeded_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='image_classification')
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    out = args.out.resolve()
    torch.set_default_dtype(torch.float64)
    # The block ends with `.float()`, which would round here.
    Tensor.float = Tensor.double
    torch.cuda.synchronize = lambda: None
    with released_main(args.folder.resolve()) as released:
        stored = run_steps(released)
        stored['schedule'] = follow_schedule(released)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **stored)
    print(f'{out}: {out.stat().st_size / 1000:.0f} kB')


@contextmanager
def released_main(folder: Path) -> Iterator[Any]:
    """Import the released ``main.py``, whose folder is the working directory meanwhile."""
    before = os.getcwd()
    # Logs of a service, which nothing here writes.
    sys.modules['wandb'] = types.ModuleType('wandb')
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        yield importlib.import_module('main')
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))


class Pictures(Dataset):
    """The given pictures as the release normalizes them. It keeps what is asked for."""

    def __init__(self) -> None:
        constants = importlib.import_module('timm.data.constants')
        mean = np.reshape(constants.IMAGENET_DEFAULT_MEAN, (3, 1, 1))
        deviation = np.reshape(constants.IMAGENET_DEFAULT_STD, (3, 1, 1))
        self.pictures = (given.pictures() / 255 - mean) / deviation
        self.labels = given.labels()
        self.order: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.order.append(index)
        return torch.from_numpy(self.pictures[index]), self.labels[index]


class Draws:
    """Keeps what Mixup draws by NumPy."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def listen(self) -> None:
        np.random.beta = partial(self._draw_beta, np.random.beta)
        np.random.randint = partial(self._draw_centre, np.random.randint)

    def _draw_beta(
        self, draw: Callable[..., float], alpha: float, beta: float
    ) -> float:
        value = draw(alpha, beta)
        self.steps.append([0.0, alpha, value])
        return value

    def _draw_centre(self, draw: Callable[..., int], *limits: int, size: None) -> int:
        value = draw(*limits)
        self.steps[-1][0] = 1.0
        self.steps[-1].append(value)
        return value

    def table(self) -> np.ndarray:
        """Return a row of five for each step."""
        return np.array([step + [0.0] * (5 - len(step)) for step in self.steps])


def arguments(released: Any, *words: str) -> argparse.Namespace:
    """Return the arguments of the README's command, with the words in addition."""
    parser = argparse.ArgumentParser(parents=[released.get_args_parser()])
    # The rate of the command is for the batch of its four GPUs, and is scaled by the batch.
    rate = given.RATE * 512 / given.BATCH
    command = ['--device', 'cpu', '--num_workers', '0', '--no-pin-mem']
    command += ['--batch-size', str(given.BATCH), '--lr', str(rate)]
    # It would draw multiples of 256 pictures.
    command += ['--no-repeated-aug', '--test_every', '1000']
    return parser.parse_args([*command, *words])


def run_steps(released: Any) -> dict[str, Any]:
    """Train 30 steps, and return what is stored of them."""
    data = Pictures()
    model = build_model()
    before = copy_tensors(model)
    draws = Draws()
    averages: list[Any] = []
    optimizers: list[Any] = []
    losses: list[float] = []
    rates: list[list[float]] = []
    update = released.utils.MetricLogger.update

    def update_and_keep(logger: Any, **values: float) -> None:
        """Log as the loop does after each step: the loss, and then the rate."""
        update(logger, **values)
        if 'loss' in values:
            losses.append(values['loss'])
        if 'lr' in values:
            rates.append(rates_of(*optimizers[0]))

    released.utils.MetricLogger.update = update_and_keep
    released.build_dataset = lambda is_train, args: (data, given.CLASSES)
    released.create_model = lambda name, **options: model
    released.ModelEma = kept(released.ModelEma, averages)
    released.my_create_optimizer = kept(released.my_create_optimizer, optimizers)
    mixup = importlib.import_module('timm.data.mixup')
    mixup.mixup_target = partial(mixup.mixup_target, device='cpu')
    draws.listen()
    with tempfile.TemporaryDirectory() as folder:
        write_llama(Path(folder), model)
        words = ['--model', 'vit_llama_small_patch16_224', '--llama_path', folder]
        words += ['--epochs', str(given.EPOCHS)]
        words += ['--warmup-epochs', str(given.WARMUP_EPOCHS)]
        released.main(arguments(released, *words))
    optimizer, _ = optimizers[0]
    # The block is frozen.
    trained = {k: v for k, v in before.items() if not k.startswith('llama.')}
    return dict(
        shapes=as_bytes(shapes_of(model)),
        draws=draws.table(),
        order=np.array(data.order[: len(data)]),
        losses=np.array(losses),
        rates=np.array(rates),
        groups=as_bytes(describe_groups(optimizer, model)),
        weights=marks_of_changes(trained, copy_tensors(model)),
        average=marks_of_changes(trained, copy_tensors(averages[0].ema)),
    )


def rates_of(optimizer: Any, *_: Any) -> list[float]:
    """Return the rates of the groups of an optimizer."""
    return [group['lr'] for group in optimizer.param_groups]


def build_model() -> nn.Module:
    """Build the small network with seeded weights."""
    vit_llama = importlib.import_module('models.vit_llama')
    model = vit_llama.ViTLLaMA(
        **given.VIT, num_classes=given.CLASSES, llama_configs=given.LLAMA
    )
    # The release has 4096 here.
    width, inner = given.VIT['embed_dim'], given.LLAMA['dim']
    model.llama_dim_mapper1 = nn.Linear(width, inner, bias=False)
    model.llama_dim_mapper2 = nn.Linear(inner, width, bias=False)
    state = model.state_dict()
    for name, values in seeded_weights(shapes_of(model)).items():
        # The norm behind the layers is never loaded: its gain stays 1.
        if name != 'llama.norm.weight':
            state[name] = torch.from_numpy(values)
    model.load_state_dict(state)
    return model


def write_llama(folder: Path, model: nn.Module) -> None:
    """Write the block's weights as the file that ``main`` loads them from."""
    layer = model.llama.layers[0].state_dict()
    number = given.LLAMA['first_layer']
    state = {f'layers.{number}.{name}': tensor for name, tensor in layer.items()}
    torch.save(state, folder / 'consolidated.00.pth')


def follow_schedule(released: Any) -> np.ndarray:
    """Return the rates of the groups in each epoch that the README's command trains."""
    rates = []

    def read_rate(*args: Any, **kwargs: Any) -> dict[str, float]:
        """Stand for the training of an epoch, whose fifth argument is the optimizer."""
        rates.append(rates_of(args[4]))
        return {}

    released.train_one_epoch = read_rate
    words = ['--epochs', '300', '--warmup-epochs', '20', '--no-model-ema']
    released.main(arguments(released, *words))
    return np.array(rates)


if __name__ == '__main__':
    main()
