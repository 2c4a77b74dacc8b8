"""A block that does nothing is an error of the first step, whatever trains the model."""

import copy
import json
import socket
import subprocess

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import nn

import lm4ve  # noqa: F401
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockInsert, LLMBlockNeck
from tests.helpers import quick_python
from tests.helpers.tasks import ROOT

ARCH = dict(
    model_type='llama',
    hidden_size=24,
    num_attention_heads=4,
    num_hidden_layers=1,
    intermediate_size=32,
    vocab_size=8,
)
NECK = dict(type='LLMBlockNeck', in_channels=16, block=dict(type='LLMBlock', arch=ARCH))


class Host(BaseModel):
    """A linear layer, a neck, a linear layer; ``uses`` says what becomes of the neck."""

    def __init__(self, uses: str = 'yes', **neck) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(16, 16)
        self.neck = MODELS.build({**NECK, **neck})
        self.head = nn.Linear(16, 3)
        self.uses = uses

    def forward(self, inputs, data_samples=None, mode='loss', scale=1.0):
        x = self.stem(inputs)
        if self.uses != 'never':
            out = self.neck(x)
            x = x if self.uses == 'drops' else out
        return dict(loss=self.head(x).square().mean() * scale)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, **kwargs) -> None:
    model(torch.randn(2, 5, 16), **kwargs)['loss'].backward()
    optimizer.step()
    optimizer.zero_grad()


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize('uses, said', [('never', 'did not run'), ('drops', 'not reach the loss')])
def test_the_first_step_of_any_loop_names_a_block_without_use(uses, said):
    model = Host(uses)
    before = copy.deepcopy(model.head.weight)
    with pytest.raises(UserError, match=said):
        step(model, sgd(model))
    assert torch.equal(model.head.weight, before)


@pytest.mark.parametrize('options', [{}, dict(with_cp=True), dict(norm_cfg=None)], ids=str)
def test_a_block_in_use_trains(options):
    model = Host(**options)
    optimizer = sgd(model)
    for _ in range(2):
        step(model, optimizer)
    assert model.neck.use.reached


def test_a_loss_of_exact_zeros_is_no_defect():
    model = Host()
    step(model, sgd(model), scale=0.0)


def test_accumulated_gradients_are_looked_at_when_the_optimizer_steps():
    model = Host()
    wrapper = OptimWrapper(sgd(model), accumulative_counts=3)
    for _ in range(4):
        with wrapper.optim_context(model):
            wrapper.update_params(model(torch.randn(2, 5, 16))['loss'])


def test_a_scaler_that_skips_the_step_does_not_hide_the_block():
    model = Host()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)
    scaler.scale(model(torch.randn(2, 5, 16))['loss'] * float('inf')).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    step(model, optimizer)


def test_frozen_mappers_and_a_step_without_any_gradient_are_no_defect():
    model = Host()
    sgd(model).step()
    for mapper in (model.neck.mapper_in, model.neck.mapper_out):
        mapper.requires_grad_(False)
    step(model, sgd(model))


def test_an_optimizer_that_trains_other_parts_is_left_alone():
    model = Host('never')
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    step(model, optimizer)


def test_evaluation_needs_no_gradient():
    model = Host('drops').eval()
    with torch.no_grad():
        model(torch.randn(2, 5, 16))


def test_who_insists_trains_on():
    model = Host('never', guard=False)
    step(model, sgd(model))


def test_a_copy_is_watched_by_itself():
    model = Host()
    step(model, sgd(model))
    twin = copy.deepcopy(model)
    twin.uses = 'never'
    with pytest.raises(UserError, match='did not run'):
        step(twin, sgd(twin))


@pytest.mark.slow
def test_a_compiled_model_trains_and_a_useless_block_is_found():
    model = Host()
    compiled = torch.compile(model, backend='aot_eager')
    step(compiled, sgd(model))
    model = Host('drops')
    with pytest.raises(UserError, match='LLMBlockNeck'):
        step(torch.compile(model, backend='aot_eager'), sgd(model))


# --------------------------------------------------------------------- LLMBlockInsert
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
    img_size=16,
    patch_size=8,
)
IMAGES = torch.randn(2, 3, 16, 16)


def insert(backbone, after: str, **options) -> nn.Module:
    pytest.importorskip('mmpretrain')
    neck = {**NECK, **options.pop('neck', {})}
    return LLMBlockInsert(backbone=backbone, after=after, neck=neck, **options)


def test_a_list_of_layers_is_refused_when_it_is_named():
    with pytest.raises(UserError, match=r"'layers'.*ModuleList.*layers.0, layers.1, layers.2"):
        insert(VIT, 'layers')


@pytest.mark.parametrize('training', [True, False])
def test_a_container_that_its_encoder_walks_through_is_named_at_the_first_batch(training):
    vgg = dict(type='mmpretrain.VGG', depth=11, num_classes=-1)
    model = insert(vgg, 'features', neck=dict(in_channels=512))
    model.train(training)
    with pytest.raises(UserError, match=r"'features' of VGG did not run.*features.0, features.1"):
        model(torch.randn(2, 3, 32, 32))


class PixelAndPatch(nn.Module):
    def forward(self, pixels, patches):
        return pixels * 2, patches + pixels.mean()


class DropsPixels(nn.Module):
    """As TNT: the last layer's first entry is used by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 16)
        self.last = PixelAndPatch()

    def forward(self, x):
        x = self.stem(x)
        return self.last(x, x)[1]


@pytest.mark.parametrize('index, used', [(0, False), (1, True)])
def test_an_entry_that_the_encoder_drops_is_named(index, used):
    model = LLMBlockInsert(backbone=DropsPixels(), after='last', neck=NECK, index=index)
    optimizer = sgd(model)

    def train() -> None:
        model(torch.randn(2, 5, 16)).sum().backward()
        optimizer.step()

    if used:
        train()
    else:
        with pytest.raises(UserError, match="after='last' of DropsPixels.*index="):
            train()


def test_an_entry_that_is_not_there_lists_what_is():
    model = LLMBlockInsert(backbone=DropsPixels(), after='last', neck=NECK, index=2)
    with pytest.raises(UserError, match=r'index=2.*0: \[2, 5, 16\], 1: \[2, 5, 16\]'):
        model(torch.randn(2, 5, 16))


class SequenceFirst(nn.Module):
    """As CLIP's transformers: tokens before samples inside."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.layer = nn.Linear(16, 16)

    def forward(self, x):
        return self.layer(self.norm(x).transpose(0, 1)).transpose(0, 1)


def test_tokens_before_samples_are_named_in_the_first_batch():
    model = LLMBlockInsert(backbone=SequenceFirst(), after='layer', neck=NECK)
    with pytest.raises(UserError, match=r"\[5, 3, 16\].*dimension 1.*neck.layout='NBC'"):
        model(torch.randn(3, 5, 16))


def test_the_look_at_the_first_batch_leaves_no_trace():
    """Neither in running statistics, random numbers, modes nor outputs."""
    torch.manual_seed(0)
    model = LLMBlockInsert(backbone=SequenceFirst(), after='norm', neck=NECK)
    model.layer.eval()
    plain = copy.deepcopy(model)
    plain._forward_pre_hooks.clear()
    x = torch.randn(3, 5, 16)
    for each in (model, plain):
        torch.manual_seed(1)
        each.seen = each(x)
        each.drawn = torch.rand(1)
    assert torch.equal(model.seen, plain.seen) and model.drawn == plain.drawn
    assert torch.equal(model.norm.running_mean, plain.norm.running_mean)
    assert model.norm.training and not model.layer.training


def test_places_are_checked_in_copies_and_after_evaluation():
    model = insert(VIT, 'layers.1')
    model.eval()
    with torch.no_grad():
        model(IMAGES)
    twin = copy.deepcopy(model)
    assert isinstance(twin.llm_neck, LLMBlockNeck)
    twin.train()
    assert twin(IMAGES)[0].shape == (2, 16)


@pytest.mark.slow
def test_two_processes_agree_and_no_wrapper_is_mistaken():
    """FSDP's flat parameters are not the mappers: there the runner's hook asks."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = str(s.getsockname()[1])
    command = [quick_python.folder() / 'python', '-W', 'ignore', '-m', 'tests.necks.guarded_ranks']
    ranks = [
        subprocess.Popen([*command, str(i), port], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for i in range(2)
    ]
    results = [json.loads(r.communicate(timeout=200)[0].splitlines()[-1]) for r in ranks]
    assert results[0] == results[1]
    for case, said in results[0].items():
        uses, _, kind = case.partition(': ')
        silent = uses == 'yes' or kind in ('fsdp', 'fsdp, original')
        assert bool(said) != silent, case
