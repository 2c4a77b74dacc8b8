"""What released code gave on seeded weights, as ``tools/dev/released`` stored it."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lm4ve.convert.key_rules import Rules, rename
from tools.dev.released.seeding import gradient_marks, seeded_weights

FOLDER = Path(__file__).parents[1] / 'data/released'


def read_stored(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of ``tests/data/released/NAME.npz``."""
    with np.load(FOLDER / f'{name}.npz', allow_pickle=False) as file:
        return dict(file)


@cache
def read_part(name: str, part: str) -> dict[str, np.ndarray]:
    """Return the arrays of ``NAME.npz`` whose names begin with ``part/``, by the rest."""
    found = {}
    for key, array in read_stored(name).items():
        if key.startswith(f'{part}/'):
            found[key.removeprefix(f'{part}/')] = array
    return found


def text_of(array: np.ndarray):
    """Return what is stored as JSON in an array of bytes."""
    return json.loads(bytes(array).decode())


def released_state(shapes: np.ndarray) -> dict[str, Tensor]:
    """Return the seeded weights of a released model, float64.

    Args:
        shapes (np.ndarray): Texts, a tensor's name and shape, such as 'head.bias 5'.
    """
    by_name = {}
    for text in shapes.tolist():
        name, *sizes = text.split()
        by_name[name] = [int(size) for size in sizes]
    state = {}
    for name, values in seeded_weights(by_name).items():
        state[name] = torch.from_numpy(values)
    # No released code loads it, nor do the scripts.
    if 'llama.norm.weight' in state:
        state['llama.norm.weight'] = torch.ones_like(state['llama.norm.weight'])
    return state


def write_llama(folder: Path, state: dict[str, Tensor], heads: int) -> str:
    """Write the layers of a released model's LLaMA as Meta does; return the folder.

    Args:
        folder (Path): Where.
        state (dict[str, Tensor]): Its names begin with 'llama.layers.'.
        heads (int): Heads of the attention.
    """
    weights = {}
    numbers = set()
    for name, tensor in state.items():
        if name.startswith('llama.layers.'):
            weights[name.removeprefix('llama.')] = tensor.float()
            numbers.add(name.split('.')[2])
    dim = len(weights['layers.0.attention_norm.weight'])
    weights['norm.weight'] = torch.ones(dim)
    params = dict(
        dim=dim,
        n_heads=heads,
        n_layers=len(numbers),
        multiple_of=16,
        norm_eps=1e-6,
        vocab_size=-1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / 'consolidated.00.pth')
    (folder / 'params.json').write_text(json.dumps(params))
    return str(folder)


def marks_of(model: nn.Module, names: dict[str, str]) -> np.ndarray:
    """Return the marks of a model's gradients in the order of the sorted released names.

    Args:
        model (nn.Module): After a backward pass.
        names (dict[str, str]): Released name of each parameter -> ours.
    """
    parameters = dict(model.named_parameters())
    gradients = {}
    for released_name, name in names.items():
        gradients[released_name] = parameters[name].grad.numpy()
    marks = gradient_marks(gradients)
    return np.stack([marks[name] for name in sorted(marks)])


def our_names(released_names: np.ndarray, rules: Rules) -> dict[str, str]:
    """Return our name of each of some parameters, by its released one."""
    any_part = Rules(renames=rules.renames, dropped=rules.dropped)
    ours = {}
    for name in released_names.tolist():
        (ours[name],) = rename({name: torch.zeros(0)}, any_part)
    return ours


def assert_equal_rows(found, expected: np.ndarray, bound: float) -> None:
    """Each row, or all of a vector, has an error below ``bound`` of its length.

    A row of a billionth of the longest one is zero but for rounding.
    """
    found, expected = np.atleast_1d(found), np.atleast_1d(expected)
    errors = np.linalg.norm(found - expected, axis=-1)
    lengths = np.linalg.norm(expected, axis=-1)
    lengths = np.maximum(lengths, 1e-9 * lengths.max())
    assert (errors <= bound * lengths).all(), (errors / lengths).max()
