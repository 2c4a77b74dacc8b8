"""A block that does nothing is an error of one iteration: ``lm4ve.check`` anywhere."""

import copy

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

import lm4ve
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockInsert, usage
from tests.necks.encoder import ARCH

NECK = dict(type='LLMBlockNeck', in_channels=16, block=dict(type='LLMBlock', arch=ARCH))
X = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))


class Host(BaseModel):
    """A linear layer, a neck, a linear layer; ``uses`` says what becomes of the neck."""

    def __init__(self, uses: str = 'yes', **neck) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(16, 16)
        self.neck = MODELS.build({**NECK, **neck})
        self.head = nn.Linear(16, 3)
        self.uses = uses

    def forward(self, inputs, data_samples=None, mode='loss'):
        x = self.stem(inputs)
        if self.uses != 'never':
            out = self.neck(x)
            x = x if self.uses == 'drops' else out
        return dict(loss=self.head(x).square().mean())


class Around(nn.Module):
    """A linear layer with another one beside it, as an adapter is."""

    def __init__(self, linear: nn.Linear, used: bool) -> None:
        super().__init__()
        self.linear, self.beside, self.used = linear, nn.Linear(16, 24, bias=False), used
        self.weight = linear.weight

    def forward(self, x):
        return self.linear(x) + (self.beside(x) if self.used else 0)


@pytest.fixture
def logged(monkeypatch):
    texts = []
    monkeypatch.setattr(usage, 'print_log', lambda text, **_: texts.append(text))
    return texts


@pytest.mark.parametrize(
    'uses, message', [('never', 'model.neck was built and did not run'), ('drops', 'the loss')]
)
def test_check_names_a_block_without_use(uses, message):
    with pytest.raises(UserError, match=message):
        lm4ve.check(Host(uses), dict(inputs=X))
    lm4ve.check(Host(uses, guard=False), dict(inputs=X))


@pytest.mark.parametrize(
    'options',
    [
        *({}, dict(with_cp=True), dict(norm_cfg=None), dict(low_rank='off')),
        *(dict(keep_others=True, index=0), dict(out_type='avg_featmap', train_queries=0.5)),
    ],
    ids=str,
)
def test_check_accepts_a_block_in_use(options):
    lm4ve.check(Host(**options), dict(inputs=X))


def test_check_of_frozen_mappers_is_quiet():
    model = Host()
    model.neck.mapper_in.requires_grad_(False)
    model.neck.mapper_out.requires_grad_(False)
    lm4ve.check(model, dict(inputs=X))


@pytest.mark.parametrize('used', [True, False])
def test_a_mapper_without_gradient_is_an_error(used):
    model = Host()
    model.neck.mapper_in = Around(model.neck.mapper_in, used)
    if used:
        lm4ve.check(model, dict(inputs=X))
    else:
        with pytest.raises(UserError, match='no gradient: model.neck.mapper_in.beside.weight'):
            lm4ve.check(model, dict(inputs=X))


@pytest.mark.parametrize('batch', [X, (X,), dict(x=X)], ids=['tensor', 'tuple', 'dict'])
def test_check_leaves_no_trace(batch):
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Linear(16, 16), nn.BatchNorm1d(5)
            self.neck = MODELS.build(NECK)

        def forward(self, x):
            return [self.neck(self.norm(self.stem(x)))]

    model = Plain()
    model(X)[0].sum().backward()
    model.norm.eval()
    before = copy.deepcopy(model)
    grads = [p.grad.clone() for p in model.parameters()]
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    lm4ve.check(model, batch)
    assert torch.rand(1) == expected
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# ----------------------------------------------------------------------------- LLMBlockInsert
class PixelAndPatch(nn.Module):
    def forward(self, pixels, patches):
        return pixels * 2, patches + pixels.mean()


class DropsPixels(nn.Module):
    """As TNT: nobody uses the last layer's first entry."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 16)
        self.last = PixelAndPatch()

    def forward(self, x):
        x = self.stem(x)
        return self.last(x, x)[1]


@pytest.mark.parametrize('index, used', [(0, False), (1, True)])
def test_an_entry_that_the_encoder_drops_is_an_error(index, used):
    model = LLMBlockInsert(backbone=DropsPixels(), after='last', neck=NECK, index=index)
    if used:
        lm4ve.check(model, X)
    else:
        with pytest.raises(UserError, match='model.llm_neck does not reach.*index='):
            lm4ve.check(model, X)


def test_an_entry_that_is_not_there_lists_what_is():
    model = LLMBlockInsert(backbone=DropsPixels(), after='last', neck=NECK, index=2)
    with pytest.raises(UserError, match=r'index=2.*0: \[3, 5, 16\], 1: \[3, 5, 16\]'):
        model(X)


class WalksThrough(nn.Module):
    """As VGG: the container of its layers is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(16, 16), nn.ReLU())

    def forward(self, x):
        for layer in self.features:
            x = layer(x)
        return x


def test_a_container_that_never_runs_is_an_error():
    model = LLMBlockInsert(backbone=WalksThrough(), after='features', neck=NECK)
    with pytest.raises(UserError, match='model.llm_neck was built and did not run'):
        lm4ve.check(model, X)
    with pytest.raises(UserError, match=r"'layers'.*ModuleList.*Fix: name one of layers.0"):
        encoder = nn.ModuleDict(dict(layers=nn.ModuleList([nn.Linear(2, 2)])))
        LLMBlockInsert(backbone=encoder, after='layers', neck=NECK)


class SequenceFirst(nn.Module):
    """As CLIP's transformers: tokens before samples inside."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.layer = nn.Linear(16, 16)

    def forward(self, x):
        return self.layer(self.norm(x).transpose(0, 1)).transpose(0, 1)


@pytest.mark.parametrize('after, layout', [('layer', 'NBC'), ('norm', 'BNC')])
def test_samples_must_be_in_the_layouts_dimension(after, layout):
    neck = {**NECK, 'layout': layout}
    lm4ve.check(LLMBlockInsert(backbone=SequenceFirst(), after=after, neck=neck), X)
    neck['layout'] = 'BNC' if layout == 'NBC' else 'NBC'
    model = LLMBlockInsert(backbone=SequenceFirst(), after=after, neck=neck)
    with pytest.raises(UserError, match=r'dimension (1|0), but .* dimension (0|1).*neck.layout'):
        lm4ve.check(model, X)


# ------------------------------------------------------------------------------- normed before
class Encoder(nn.Module):
    def __init__(self, last: nn.Module, after=lambda x: x, **neck) -> None:
        super().__init__()
        self.stem, self.last, self.after = nn.Linear(16, 16), last, after
        self.neck = MODELS.build({**NECK, **neck})

    def forward(self, x):
        return self.neck(self.after(self.last(self.stem(x))))


@pytest.mark.parametrize(
    'last, after, warned',
    [
        (nn.LayerNorm(16), lambda x: x, 'model.last.weight'),
        (nn.LayerNorm(16, elementwise_affine=False), lambda x: x, ''),
        (nn.LayerNorm(16), lambda x: x.transpose(1, 2).contiguous().transpose(1, 2), 'model.last'),
        (nn.GroupNorm(1, 5), lambda x: x, 'model.last'),
        (nn.LayerNorm(16), lambda x: x[:, 1:], 'model.last'),
        (nn.Linear(16, 16), lambda x: x, None),
        (nn.LayerNorm(16), lambda x: x.relu(), None),
        (nn.LayerNorm(16), lambda x: x + 1, None),
    ],
)
def test_features_that_come_out_of_a_norm_are_a_warning(last, after, warned, logged):
    lm4ve.check(Encoder(last, after), X)
    assert bool(logged) == (warned is not None)
    assert all(warned in text and 'norm_cfg=None' in text for text in logged)
    logged.clear()
    lm4ve.check(Encoder(last, after, norm_cfg=None), X)
    assert not logged


@pytest.mark.parametrize('host', ['PCPVT', 'VAN'])
def test_encoders_that_norm_their_last_stage_are_a_warning(host, logged):
    pytest.importorskip('mmpretrain')
    arch = dict(embed_dims=[4, 4, 8, 16], depths=[1] * 4)
    if host == 'PCPVT':
        sizes = dict(num_heads=[1] * 4, patch_sizes=[4, 2, 2, 2], strides=[4, 2, 2, 2])
        arch.update(sizes, mlp_ratios=[2] * 4, sr_ratios=[8, 4, 2, 1])
    else:
        arch.update(ffn_ratios=[2] * 4)
    more = dict(norm_after_stage=True) if host == 'PCPVT' else {}
    backbone = MODELS.build(dict(type=f'mmpretrain.{host}', arch=arch, **more))
    lm4ve.check(nn.Sequential(backbone, MODELS.build(NECK)), torch.randn(2, 3, 64, 64))
    assert len(logged) == 1
