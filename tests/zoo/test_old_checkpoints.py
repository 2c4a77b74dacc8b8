"""Checkpoints of an earlier version load, and give the outputs that they gave then.

They lie in ``tests/zoo/golden/old_checkpoints``. ``--write-golden`` writes those that
are not there yet, and leaves the others as they are: a checkpoint that no longer loads
is a defect, not a reason for a new checkpoint.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

import lm4ve
from lm4ve.errors import CheckpointError
from lm4ve.necks import LLMBlockInsert
from tests.helpers.closeness import rounding_bound_of
from tests.helpers.families import write_huggingface
from tests.helpers.golden import FOLDER

OLD = FOLDER / 'old_checkpoints'
#: The language model of all of them, and the width of the encoder's tokens.
LLM = 'llama'
WIDTH = 8


class Encoder(nn.Module):
    """Two residual layers on tokens ``[B, N, 8]``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layers:
            tokens = tokens + layer(tokens).tanh()
        return tokens


def neck(block: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return the config of a neck; ``block`` has fields of its block."""
    settings = dict(type='LLMBlock', checkpoint=LLM)
    settings.update(block or {})
    config = dict(type='LLMBlockNeck', in_channels=WIDTH, block=settings)
    config.update(fields)
    return config


NECKS = {
    'class_token': neck(out_type='cls_token'),
    'mean': neck(out_type='avg_featmap', num_extra_tokens=1),
    'mean_of_normed': neck(out_type='avg_featmap', norm_first=True),
    'gate': neck(residual='inner', gate='tanh'),
    'mapper': neck(
        residual='outer', mapper=dict(bias=True, depth=2, act='GELU', skip='LeakyReLU')
    ),
    'mapper_lora': neck(lora=dict(r=2)),
    'block_lora': neck(block=dict(trainable='lora', lora=dict(r=2)), residual='both'),
    'norms': neck(block=dict(trainable='norms')),
    'causal_rotary': neck(block=dict(causal=True, rotary=True, layers=[0, 1])),
    'float16': neck(block=dict(dtype='float16')),
    'random': neck(block=dict(pretrained=False, trainable='all', final_norm=False)),
    'mlp': dict(
        type='LLMBlockNeck',
        in_channels=WIDTH,
        block=dict(type='MLPBlock', embed_dims=16),
    ),
}

INSERTS = {
    'insert': dict(after='layers.0', neck=neck()),
    'insert_two': dict(after=['layers.0', 'layers.1'], neck=[neck(), neck()]),
    'insert_shared': dict(
        after=['layers.0', 'layers.1'], neck=[neck(), neck()], share_block=True
    ),
}


def build(name: str) -> nn.Module:
    """Build the model of an old checkpoint, with other weights."""
    if name in NECKS:
        return MODELS.build(NECKS[name])
    return LLMBlockInsert(Encoder(), **INSERTS[name])


def scatter_weights(model: nn.Module) -> None:
    """Give every parameter that trains a value, as a training would."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)


@pytest.fixture(autouse=True)
def beside_the_language_model(monkeypatch, request):
    """Work where the configs' relative path leads to the language model."""
    writes = request.config.option.write_golden
    if writes and not (OLD / LLM).exists():
        write_huggingface(OLD / LLM, 'llama', num_hidden_layers=2)
    monkeypatch.chdir(OLD)


def tokens() -> Tensor:
    return torch.randn(2, 5, WIDTH)


@torch.no_grad()
def write_checkpoint(name: str, path: Path) -> None:
    model = build(name).eval()
    scatter_weights(model)
    inputs = tokens()
    stored = dict(state_dict=model.state_dict(), inputs=inputs, outputs=model(inputs))
    torch.save(stored, path)


@torch.no_grad()
@pytest.mark.parametrize('name', [*NECKS, *INSERTS])
def test_old_checkpoint_loads_and_gives_its_outputs(name, request):
    path = OLD / f'{name}.pth'
    if request.config.option.write_golden and not path.exists():
        write_checkpoint(name, path)
    stored = torch.load(path, weights_only=True)
    model = build(name).eval()
    model.load_state_dict(stored['state_dict'], strict=True)
    assert_close(model(stored['inputs']), stored['outputs'], model)


def test_old_checkpoint_with_a_removed_field_is_refused_by_its_name():
    stored = torch.load(OLD / 'queries.pth', weights_only=True)
    model = MODELS.build(neck(out_type='cls_token'))
    with pytest.raises(CheckpointError, match="made with neck.out_type='query'"):
        model.load_state_dict(stored['state_dict'], strict=False)


@torch.no_grad()
def test_old_folder_of_save_pretrained_loads_and_gives_its_outputs(request):
    folder = OLD / 'save_pretrained'
    if request.config.option.write_golden and not folder.exists():
        write_folder(folder)
    stored = torch.load(folder / 'outputs.pth', weights_only=True)
    model = Encoder().eval()
    model.load_state_dict(stored['encoder'])
    lm4ve.from_pretrained(model, folder)
    assert_close(model(stored['inputs']), stored['outputs'], model)


def write_folder(folder: Path) -> None:
    model = Encoder().eval()
    scatter_weights(model)
    encoder = {name: value.clone() for name, value in model.state_dict().items()}
    fields = dict(residual='outer', gate=True, lora=dict(r=2))
    lm4ve.wrap(model, after='layers.0', block=dict(checkpoint=LLM), **fields)
    scatter_weights(model)
    lm4ve.save_pretrained(model, folder)
    inputs = tokens()
    stored = dict(encoder=encoder, inputs=inputs, outputs=model(inputs))
    torch.save(stored, folder / 'outputs.pth')


def assert_close(found: Tensor, expected: Tensor, model: nn.Module) -> None:
    assert found.shape == expected.shape
    error = (found.double() - expected.double()).norm() / expected.double().norm()
    assert error <= rounding_bound_of(model)
