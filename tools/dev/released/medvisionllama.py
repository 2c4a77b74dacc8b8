"""Run MedVisionLlama's released code and store what it gives, for the tests to compare ours with.

Repository: https://github.com/AS-Lab/Marthi-et-al-2025-MedVisionLlama-Pre-Trained-LLM-Layers-to-Enhance-Medical-Image-Segmentation
Commit: 1b951b5 ("Update README with ICCV 2025 presentation details")

    pip install loralib==0.1.2 unfoldNd==0.2.3 SimpleITK==2.5.7
    python tools/dev/released/medvisionllama.py CHECKOUT tests/data/released/medvisionllama.npz

What is stored: one volume as ``src/data/datasets.py`` prepares it (as it is, rotated,
its intensities changed, with the angle and the factors that were drawn); of a batch of
the first two of these the network's probabilities, ``DiceBCELoss`` of them and two
numbers of each trained weight's gradient. Volume and weights follow from seeds
(``tests/helpers/medical/medvisionllama.py``, ``seeding.py``); the weights' names and
shapes are stored.

The network is computed in float64: ``Tensor.float``, which the released code calls
within its norms, softmax and loss, keeps 64 bits here.

``src/models/medvisionllama.py`` does not compile, and its sizes are numbers within the
code. :data:`REPAIRS` changes it as little as needed; nothing else is changed:

- line 59: a parenthesis is not closed;
- lines 52 to 65: ``time``, ``Path`` and ``lora`` are used, but not imported;
- lines 43 to 45, 65, 66, 81, 82: the widths and heads of Llama 3.1 8B, here small;
- line 52: the path of the language model, here a file without tensors (it is loaded
  with ``strict=False``; line 58).

``scripts/train.py`` cannot be imported either, since it imports
``src/models/medvisionllama_variants.py``, which does not compile (line 62). Its training
loop was read, not run.
"""

import argparse
import sys
import tempfile
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests.helpers.medical import medvisionllama as given  # noqa: E402
from tools.dev.released.seeding import (  # noqa: E402
    gradient_marks,
    seeded_weights,
)

#: What is replaced in the network's file -> by what.
REPAIRS = {
    'import logging\n': (
        'import logging\nimport time\nfrom pathlib import Path\nimport loralib as lora\n'
    ),
    ':.2f} seconds"\n': ':.2f} seconds")\n',
    '4096': str(given.WIDTH),
    '"multiple_of": 256': '"multiple_of": 16',
    '"n_heads": 32': f'"n_heads": {given.HEADS}',
    '"kv_heads": 8': f'"kv_heads": {given.KV_HEADS}',
}
LLM_PATH = '/path/to/your/project/LLaMA_v3.1/llama-3.1-8b'


def load_network(checkout: Path, llm_folder: Path) -> Any:
    """Return the repaired module of the network."""
    path = checkout / 'src/models/medvisionllama.py'
    source = path.read_text()
    for old, new in {**REPAIRS, LLM_PATH: str(llm_folder)}.items():
        if old not in source:
            sys.exit(f'{path} has no {old!r}: is it another commit?')
        source = source.replace(old, new)
    module = types.ModuleType('medvisionllama')
    exec(compile(source, str(path), 'exec'), module.__dict__)
    return module


def build_network(checkout: Path) -> torch.nn.Module:
    """Return the network with seeded weights, in float64 and training, without dropout."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save({}, Path(folder) / 'consolidated.00.pth')
        module = load_network(checkout, Path(folder))
        network = module.MedVisionLlama(
            image_size=given.IMAGE_SIZE,
            patch_size=given.PATCH_SIZE,
            in_channels=1,
            out_channels=1,
            embed_size=given.EMBED_DIMS,
            num_blocks=given.DEPTH,
            num_heads=4,
            dropout=0.0,
        )
    weights = seeded_weights(shapes_of(network))
    for name, tensor in network.state_dict().items():
        if name in weights:
            tensor.copy_(torch.from_numpy(weights[name]))
    return network.double().train()


def shapes_of(network: torch.nn.Module) -> dict[str, list[int]]:
    """Return the shapes of the weights that are given seeded values.

    Layers that draw pictures only are left out, and so is the norm behind the language
    model's layer: no file is ever loaded into it, and its gain stays 1.
    """
    shapes = {}
    for name, tensor in network.state_dict().items():
        if not name.startswith('vis_') and name != 'llm.norm.weight':
            shapes[name] = list(tensor.shape)
    return shapes


def prepare_volumes(checkout: Path) -> dict[str, np.ndarray]:
    """Return a volume and its label as the data sets of the released code give them."""
    from src.data import datasets

    with tempfile.TemporaryDirectory() as folder:
        image, label = given.write_brain(Path(folder))
        listing = Path(folder) / 'data_file.txt'
        listing.write_text(f'{image.name},{label.name}\n')
        original = datasets.MyDataset(folder, str(listing), given.IMAGE_SIZE)
        rotated = datasets.RotatedDataset(original, rotation_range=(-5, 5))
        changed = datasets.IntensityAdjustedDataset(
            original, brightness_range=(0.9, 1.1), contrast_range=(0.9, 1.1)
        )
        found = {}
        found['image'], found['label'] = original[0]
        np.random.seed(given.DRAWS)
        found['rotated_image'], found['rotated_label'] = rotated[0]
        np.random.seed(given.DRAWS)
        found['changed_image'], found['changed_label'] = changed[0]
    # What the two have drawn.
    np.random.seed(given.DRAWS)
    found['angle'] = np.array(np.random.uniform(-5, 5))
    np.random.seed(given.DRAWS)
    found['factors'] = np.random.uniform(0.9, 1.1, 2)
    return found


def run_network(
    checkout: Path, volumes: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return outputs, losses and gradients of a batch of two volumes."""
    from src.losses.losses import DiceBCELoss

    network = build_network(checkout)
    images = np.stack([volumes['image'], volumes['rotated_image']])
    labels = np.stack([volumes['label'], volumes['rotated_label']])
    # As scripts/train.py:155 to 159.
    target = (torch.from_numpy(labels) > 0.5).float()
    probabilities, _ = network(torch.from_numpy(images).float())
    probabilities = probabilities.squeeze(1)
    loss = DiceBCELoss()(probabilities, target)
    loss.backward()
    shapes = []
    for name, shape in shapes_of(network).items():
        shapes.append(' '.join([name, *map(str, shape)]))
    gradients = {}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            gradients[name] = parameter.grad.numpy()
    marks = gradient_marks(gradients)
    return dict(
        shapes=np.array(shapes),
        probabilities=probabilities.detach().numpy(),
        loss=loss.detach().numpy(),
        parameters=np.array(sorted(marks)),
        gradients=np.stack([marks[name] for name in sorted(marks)]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('checkout', type=Path, help='folder of the released code')
    parser.add_argument('out', type=Path, help='the file to write, .npz')
    args = parser.parse_args()
    sys.path.insert(0, str(args.checkout.resolve()))
    volumes = prepare_volumes(args.checkout)
    # The released code asks for 32 bits in the middle of the network.
    with mock.patch.object(torch.Tensor, 'float', torch.Tensor.double):
        results = run_network(args.checkout, volumes)
    np.savez_compressed(args.out, **volumes, **results)
    print(f'{args.out}: {args.out.stat().st_size / 1000:.1f} kB')


if __name__ == '__main__':
    main()
