"""Run CMUNeXt's code and store what it computes, for tests/projects/llm4seg.

    git clone https://github.com/FengheTan9/CMUNeXt FOLDER
    git -C FOLDER checkout affbf03ef631bb318d87b73ef97b2eacd0a5de85
    pip install --no-deps albumentations==1.2.0 qudida==0.0.4
    python -m tools.dev.released.cmunext FOLDER tests/data/released/cmunext.npz

LLM4Seg's code, which derives from this, cannot be had at present. Network, data set, loss
and metrics are what both have; the layer in the bottleneck is LLM4Seg's own.
"""

import importlib
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

import albumentations
import cv2
import numpy as np
import torch

from tools.dev.released.seeding import gradient_marks, seeded_weights

SIZES = dict(dims=[4, 6, 8, 10, 16], depths=[1, 1, 1, 3, 1], kernels=[3, 3, 7, 7, 7])
#: Every how many pixels of an input are stored.
STRIDE = 8


def random_logits() -> np.ndarray:
    """Return logits of four pictures ``[4, 1, 32, 32]``."""
    return np.random.default_rng(2).standard_normal((4, 1, 32, 32))


def random_masks() -> np.ndarray:
    """Return masks of four pictures ``[4, 1, 32, 32]``, the last of which has no lesion."""
    masks = np.random.default_rng(3).random((4, 1, 32, 32)) < 0.3
    masks[3] = False
    return masks.astype(np.float64)


def run_network(stored: dict) -> None:
    """Store logits, loss and the marks of all gradients of a small network."""
    network = importlib.import_module('network.CMUNeXt')
    losses = importlib.import_module('utils.losses')
    model = network.CMUNeXt(**SIZES).double()
    state = model.state_dict()
    shapes = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            shapes[name] = tensor.shape
    for name, values in seeded_weights(shapes).items():
        state[name] = torch.from_numpy(values)
    model.load_state_dict(state)
    texts = [' '.join([name, *map(str, shape)]) for name, shape in shapes.items()]
    stored['network.shapes'] = np.array(texts)
    x = torch.from_numpy(np.random.default_rng(4).standard_normal((4, 3, 32, 32)))
    stored['network.logits'] = model.eval()(x).detach().numpy()[..., ::4, ::4]
    masks = torch.from_numpy(random_masks())
    loss = losses.BCEDiceLoss()(model.train()(x), masks)
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        gradients[name] = parameter.grad.numpy()
    marks = gradient_marks(gradients)
    stored['network.loss'] = loss.detach().numpy()
    stored['network.gradient_names'] = np.array(sorted(marks))
    stored['network.gradients'] = np.stack([marks[name] for name in sorted(marks)])


def run_metrics(stored: dict) -> None:
    """Store IoU and Dice of each of four pictures."""
    metrics = importlib.import_module('utils.metrics')
    logits = torch.from_numpy(random_logits())
    # Where neither has a lesion, the score is one.
    logits[3] = -1
    masks = torch.from_numpy(random_masks())
    scores = []
    for picture in range(len(logits)):
        one = slice(picture, picture + 1)
        iou, dice, *_ = metrics.iou_score(logits[one], masks[one])
        scores.append([iou, dice])
    stored['metrics.scores'] = np.array(scores)


def run_pipeline(stored: dict) -> None:
    """Store a picture and its mask as the validation gives them to network and loss."""
    dataset = importlib.import_module('dataloader.dataset')
    generator = np.random.default_rng(5)
    picture = generator.integers(0, 256, (100, 120, 3), np.uint8)
    mask = 255 * (generator.random((100, 120)) < 0.3).astype(np.uint8)
    # As in main.py, whose imports need a GPU.
    transform = albumentations.Compose(
        [albumentations.Resize(256, 256), albumentations.Normalize()]
    )
    with tempfile.TemporaryDirectory() as root:
        for folder, pixels in (('images', picture), ('masks/0', mask)):
            file = Path(root, folder, 'a.png')
            file.parent.mkdir(parents=True)
            cv2.imwrite(str(file), pixels)
        Path(root, 'val.txt').write_text('a\n')
        sample = dataset.MedicalDataSets(root, 'val', transform)[0]
    stored['pipeline.image'] = sample['image'][:, ::STRIDE, ::STRIDE]
    stored['pipeline.mask'] = sample['label'][0, ::STRIDE, ::STRIDE]


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='a checkout of the released code')
    parser.add_argument('out', type=Path, help='the file to write')
    args = parser.parse_args()
    sys.path.insert(0, str(args.folder.resolve()))
    stored: dict[str, np.ndarray] = {}
    run_network(stored)
    run_metrics(stored)
    run_pipeline(stored)
    np.savez_compressed(args.out, **stored)


if __name__ == '__main__':
    main()
