"""Run the released PanguMotion and RealMotion, and store what they give, for the tests.

Repositories and commits:

- https://github.com/QuanhaoR/RealMotionPanGu, c384929e12f8680966d42029a9ba5ea8c138071e
- https://github.com/fudan-zvg/RealMotion, e292609f03ccd415c4f2ac6dd7fd907c098508e8

    pip install av2==0.3.6 pytorch-lightning==2.6.6 timm==1.0.31 torchmetrics==1.9.0
    python tools/dev/released/realmotion.py REALMOTIONPANGU REALMOTION \\
        tests/data/released/realmotion.npz

What is stored:

- ``block/``: openPangu's last layer and norm (``pangu.py``) with padding, and the
  gradient of the input;
- ``pangu/``: ``RealMotion_pangu`` with the scene stream alone, as
  ``conf/model/RealMotion_pangu.yaml`` has it, on three sub-scenes: trajectories, scores,
  losses, and two numbers of each gradient; the optimizer's two groups and the learning
  rate of each of 80 epochs;
- ``independent/``: the same of ``RealMotion_I``;
- ``data/``: two scenarios as the extractor and the data set of RealMotionPanGu prepare
  them, three sub-scenes each. (Both repositories have the same there.)

Scenarios, inputs and weights follow from seeds (``tests/helpers/motion/realmotion.py``,
``seeding.py``). Networks are computed in float64, without dropout and stochastic depth.
:data:`REPAIRS` changes the released files so that they import here, compute in float64,
and have a small language model; :func:`natten` stands for the CUDA package NATTEN 0.17,
which has no build for this version of torch, and follows its definition.
"""

import argparse
import importlib
import json
import shutil
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests.helpers.motion import realmotion as given  # noqa: E402
from tools.dev.released.seeding import gradient_marks, seeded_weights  # noqa: E402

WIDTH = given.LLM['hidden_size']
SIZES = dict(
    embed_dim=128,
    future_steps=given.FUTURE,
    encoder_depth=4,
    num_heads=8,
    mlp_ratio=4.0,
    qkv_bias=False,
    drop_path=0.2,
)
#: File -> what is replaced in it -> by what.
REPAIRS = {
    'realmotion/model/pangu.py': {
        'from transformers.utils import LossKwargs, auto_docstring, can_return_tuple, logging': (
            'from transformers.utils import logging, TransformersKwargs as LossKwargs\n'
            'auto_docstring = can_return_tuple = lambda method: method'
        ),
        'torch.float32': 'torch.float64',
    },
    'realmotion/model/realmotion_pangu.py': {
        '1536': str(WIDTH),
        '.float()': '.double()',
    },
    'realmotion/utils/optim.py': {'last_epoch, verbose)': 'last_epoch)'},
    'realmotion/model/layers/agent_embedding.py': {
        'timm.models.layers': 'timm.layers',
    },
    'realmotion/model/layers/transformer_blocks.py': {
        'timm.models.layers': 'timm.layers',
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('pangu', type=Path, help='checkout of RealMotionPanGu')
    parser.add_argument('realmotion', type=Path, help='checkout of RealMotion')
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    sys.modules['natten'] = natten()
    stored: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        enter(args.pangu, Path(folder) / 'pangu')
        add(stored, 'block', run_block())
        add(stored, 'pangu', run_pangu())
        torch.set_default_dtype(torch.float32)
        add(stored, 'data', run_data(Path(folder) / 'scenarios'))
        torch.set_default_dtype(torch.float64)
        leave()
        enter(args.realmotion, Path(folder) / 'realmotion')
        add(stored, 'independent', run_independent())
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, **stored)


def enter(checkout: Path, folder: Path) -> None:
    """Copy a checkout with the repairs, and make it importable."""
    shutil.copytree(checkout, folder)
    for name, changes in REPAIRS.items():
        path = folder / name
        if not path.exists():
            continue
        text = path.read_text()
        for before, after in changes.items():
            text = text.replace(before, after)
        path.write_text(text)
    config = folder / 'realmotion/model/pangu_config.json'
    if config.exists():
        fields = json.loads(config.read_text()) | given.LLM
        config.write_text(json.dumps(fields | dict(assign_layer_idx=[1])))
    sys.path.insert(0, str(folder))


def leave() -> None:
    """Forget what was imported of a checkout."""
    sys.path.pop(0)
    for name in list(sys.modules):
        if name.split('.')[0] == 'realmotion':
            del sys.modules[name]


def add(stored: dict[str, np.ndarray], part: str, arrays: dict[str, Any]) -> None:
    for name, array in arrays.items():
        if torch.is_tensor(array):
            array = array.detach().numpy()
        stored[f'{part}/{name}'] = np.asarray(array)


def seed_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Give a model its seeded weights; return the shapes by which they are drawn."""
    state = model.state_dict()
    shapes = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            shapes[name] = list(tensor.shape)
    for name, weight in seeded_weights(shapes).items():
        state[name].copy_(torch.from_numpy(weight))
    text = json.dumps(shapes).encode()
    return dict(shapes=np.frombuffer(text, np.uint8))


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        for name in ('p', 'dropout', 'drop_prob'):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model.train()


# ----------------------------------------------------------------------------- networks
def run_block() -> dict[str, Any]:
    """Run openPangu's last layer and its norm."""
    config = importlib.import_module('realmotion.model.configuration_openpangu_dense')
    pangu = importlib.import_module('realmotion.model.pangu')
    fields = {k: v for k, v in given.LLM.items() if k != 'model_type'}
    model = pangu.PanguEmbeddedModel(
        config.PanguEmbeddedConfig(**fields, assign_layer_idx=[1])
    ).double()
    stored = seed_weights(model)
    # The release loads the layer alone: the norm after it keeps its gain of 1.
    nn.init.ones_(model.norm.weight)
    x, padding = given.block_inputs()
    tokens = torch.from_numpy(x).requires_grad_()
    out = model(tokens, key_padding_mask=torch.from_numpy(padding))
    out[~torch.from_numpy(padding)].square().sum().backward()
    return dict(stored, out=out, gradient=tokens.grad)


def run_pangu() -> dict[str, Any]:
    """Run the streaming model on three sub-scenes, and take its optimizer apart."""
    module = importlib.import_module('realmotion.model.realmotion_pangu')
    model = module.RealMotion_pangu(
        use_stream_encoder=True, use_stream_decoder=False, **SIZES
    ).double()
    stored = seed_weights(model)
    nn.init.ones_(model.pangu.norm.weight)
    batches = [released_batch(inputs) for inputs in given.sub_scenes()]
    lightning = importlib.import_module('realmotion.model.pl_modules')
    optim = types.SimpleNamespace(
        lr=1e-3, weight_decay=1e-2, min_lr=1e-5, epochs=80, warmup_ratio=0.167
    )
    training = lightning.StreamLightningModule(model=model, optim=optim)
    stored |= train(training, without_dropout(model), batches)
    (optimizer,), (schedule,) = training.configure_optimizers()
    names = {id(p): name for name, p in model.named_parameters()}
    decay, no_decay = optimizer.param_groups
    assert (decay['weight_decay'], no_decay['weight_decay']) == (1e-2, 0)
    undecayed = sorted(names[id(p)] for p in no_decay['params'])
    rates = []
    for _ in range(80):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        schedule.step()
    text = json.dumps(undecayed).encode()
    return dict(stored, rates=rates, undecayed=np.frombuffer(text, np.uint8))


def run_independent() -> dict[str, Any]:
    """Run ``RealMotion_I`` on the last sub-scene."""
    module = importlib.import_module('realmotion.model.realmotion')
    model = module.RealMotion_I(**SIZES).double()
    stored = seed_weights(model)
    lightning = importlib.import_module('realmotion.model.pl_modules')
    training = lightning.StreamLightningModule(model=model)
    batches = [released_batch(given.sub_scenes()[-1])]
    return stored | train(training, without_dropout(model), batches)


def train(training: Any, model: nn.Module, batches: list[dict]) -> dict[str, Any]:
    """Run sub-scenes as a training step does; return outputs, losses and gradients."""
    stored: dict[str, Any] = {}
    memory = None
    total: Any = 0
    for step, batch in enumerate(batches):
        batch['memory_dict'] = memory
        out = model(batch)
        loss, named = training.cal_loss(out, batch)
        total = total + loss
        memory = out.get('memory_dict')
        for name in ('y_hat', 'pi', 'y_hat_others'):
            stored[f'{step}/{name}'] = out[name]
        for name, value in named.items():
            stored[f'{step}/{name}'] = value
    total.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradients[name] = parameter.grad.numpy()
    marks = gradient_marks(gradients)
    stored['gradient_names'] = np.array(sorted(marks), dtype=str)
    stored['gradients'] = np.stack([marks[name] for name in sorted(marks)])
    return stored


def released_batch(inputs: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return inputs as ``collate_fn`` of the released data set gives them."""
    t = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
    valid = t['agents_valid']
    both = valid[..., 1:] & valid[..., :-1]
    steps = torch.zeros_like(t['agents'])
    steps[..., 1:, :] = torch.where(both[..., None], t['agents'].diff(dim=2), 0.0)
    speeds = torch.zeros_like(t['agent_speeds'])
    speeds[..., 1:] = torch.where(both, t['agent_speeds'].diff(dim=2), 0.0)
    angles = torch.zeros_like(t['agent_speeds'])
    angles[..., -1] = t['agent_headings']
    centers = t['agents'][:, :, -1]
    lanes = t['lanes']
    lane_valid = t['lanes_valid']
    along = lanes[:, :, 10] - lanes[:, :, 9]
    target = torch.where(
        t['future_valid'][..., None], t['future'] - centers[:, :, None], 0.0
    )
    kinds = torch.zeros(*t['agent_kinds'].shape, 3, dtype=torch.uint8)
    kinds[..., 2] = t['agent_kinds']
    time, heading, *_ = t['pose'].T
    return dict(
        target=target,
        target_mask=t['future_valid'],
        x_positions_diff=steps,
        x_velocity_diff=speeds,
        x_valid_mask=valid,
        x_key_valid_mask=valid.any(-1),
        x_attr=kinds,
        x_centers=centers,
        x_angles=angles,
        lane_positions=torch.where(lane_valid[..., None], lanes, 0.0),
        lane_centers=lanes[:, :, 9:11].mean(dim=2),
        lane_angles=torch.atan2(along[..., 1], along[..., 0]),
        lane_valid_mask=lane_valid,
        lane_key_valid_mask=lane_valid.any(-1),
        origin=t['pose'][:, 2:],
        theta=heading,
        timestamp=time,
    )


def natten() -> types.ModuleType:
    """Return a module with NATTEN's attention in one dimension, query by query."""

    class NeighborhoodAttention1D(nn.Module):
        def __init__(
            self, dim, num_heads, kernel_size, dilation, qkv_bias, qk_scale, **rates
        ):
            super().__init__()
            assert dilation is None and qk_scale is None
            self.num_heads = num_heads
            self.kernel_size = kernel_size
            self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
            self.proj = nn.Linear(dim, dim)

        def forward(self, x):
            length = x.shape[1]
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            q, k, v = (y.unflatten(-1, (self.num_heads, -1)) for y in (q, k, v))
            out = []
            for i in range(length):
                start = min(
                    max(i - self.kernel_size // 2, 0), length - self.kernel_size
                )
                near = slice(start, start + self.kernel_size)
                scores = torch.einsum('bhc,bnhc->bhn', q[:, i], k[:, near])
                weights = (scores / q.shape[-1] ** 0.5).softmax(-1)
                out.append(torch.einsum('bhn,bnhc->bhc', weights, v[:, near]))
            return self.proj(torch.stack(out, dim=1).flatten(2))

    module: Any = types.ModuleType('natten')
    module.NeighborhoodAttention1D = NeighborhoodAttention1D
    return module


# --------------------------------------------------------------------------------- data
def run_data(folder: Path) -> dict[str, Any]:
    """Prepare two scenarios by the released extractor and data set."""
    extractor = importlib.import_module('realmotion.datamodules.av2_extractor')
    dataset = importlib.import_module('realmotion.datamodules.av2_dataset')
    reader = dataset.Av2Dataset.__new__(dataset.Av2Dataset)
    reader.num_historical_steps = 30
    reader.num_future_steps = 60
    reader.split_points = [30, 40, 50]
    reader.radius = 150.0
    sequences = []
    for path in given.write_scenarios(folder):
        sequences.append(reader.process(extractor.Av2Extractor().get_data(path)))
    stored = {}
    for step, batch in enumerate(dataset.collate_fn(sequences)):
        for name, value in batch.items():
            if name in ('scenario_id', 'track_id'):
                continue
            stored[f'{step}/{name}'] = value
    return stored


if __name__ == '__main__':
    main()
