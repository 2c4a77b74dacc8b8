"""A block that does nothing is an error of one iteration: ``lm4ve.check`` anywhere."""

import copy
import gc
from contextlib import nullcontext

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.utils.checkpoint import checkpoint

import lm4ve
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockInsert
from tests.helpers.models import BLOCK
from tests.helpers.necks.foreign import Adapter
from tests.helpers.necks.host import NECK, Host

#: The input of all models here, ``[3, 5, 16]``.
X = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    'uses, message', [('never', 'did not run'), ('drops', 'the loss')]
)
def test_a_block_without_use_is_an_error(uses, message):
    with pytest.raises(UserError, match=message):
        lm4ve.check(Host(uses), dict(inputs=X))
    lm4ve.check(Host(uses, guard=False), dict(inputs=X))


#: Fields of a neck that has an effect; ``frozen`` is for its mappers.
IN_USE = [
    {},
    dict(with_cp=True),
    dict(norm_cfg=None),
    dict(low_rank='off'),
    dict(frozen=True),
    dict(keep_others=True, index=0),
]


@pytest.mark.parametrize('options', IN_USE, ids=str)
def test_check_accepts_a_block_in_use(options):
    fields = dict(options)
    frozen = fields.pop('frozen', False)
    model = Host(**fields)
    model.neck.mapper_in.requires_grad_(not frozen)
    model.neck.mapper_out.requires_grad_(not frozen)
    lm4ve.check(model, dict(inputs=X))


def test_a_mapper_without_gradient_is_an_error():
    model = Host()
    model.neck.mapper_in = Adapter(model.neck.mapper_in)
    lm4ve.check(model, dict(inputs=X))
    model.neck.mapper_in.unused = nn.Parameter(torch.zeros(2))
    with pytest.raises(UserError, match='no gradient: model.neck.mapper_in.unused'):
        lm4ve.check(model, dict(inputs=X))


class Plain(nn.Module):
    """A host that is no model of MMEngine; ``last`` comes before the neck."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.stem, self.last = nn.Linear(16, 16), last
        self.neck = MODELS.build(NECK)

    def forward(self, x):
        return [self.neck(self.last(self.stem(x)))]


def test_a_model_without_a_neck_is_an_error():
    with pytest.raises(UserError, match='LLMBlockNeck'):
        lm4ve.check(nn.Linear(16, 16), X)


@pytest.mark.parametrize('batch', [X, (X,), dict(x=X)], ids=['tensor', 'tuple', 'dict'])
def test_check_leaves_no_trace(batch):
    model = Plain(nn.BatchNorm1d(5))
    model(X)[0].sum().backward()
    model.last.eval()
    modes = [m.training for m in model.modules()]
    grads = [p.grad.clone() for p in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()

    lm4ve.check(model, batch)

    assert torch.equal(torch.get_rng_state(), random_state)
    assert [m.training for m in model.modules()] == modes
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert torch.equal(parameter.grad, grad)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


# -----------------------------------------------------------------------------
# LLMBlockInsert
class PixelAndPatch(nn.Module):
    def forward(self, pixels, patches):
        return pixels * 2, patches + pixels.mean()


class DropsPixels(nn.Module):
    """As TNT: nobody uses the last layer's first entry."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Linear(16, 16), PixelAndPatch()

    def forward(self, x):
        x = self.stem(x)
        return self.last(x, x)[1]


class WalksThrough(nn.Module):
    """As VGG: the container of its layers is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(16, 16), nn.ReLU())

    def forward(self, x):
        for layer in self.features:
            x = layer(x)
        return x


class Unused(WalksThrough):
    """Has a layer that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(16, 16)


class SequenceFirst(nn.Module):
    """As CLIP's transformers: tokens before samples inside."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(5), nn.Linear(16, 16)

    def forward(self, x):
        return self.layer(self.norm(x).transpose(0, 1)).transpose(0, 1)


#: An encoder, the neck's place, its index and layout, and the error if there is one.
PLACES = [
    (DropsPixels, 'last', 1, None, None),
    (DropsPixels, 'last', 0, None, 'model.llm_neck does not reach.*index='),
    (DropsPixels, 'last', 2, None, r'index=2.*0: \[3, 5, 16\], 1: \[3, 5, 16\]'),
    (WalksThrough, 'features', 0, None, None),  # by its last layer
    (Unused, 'extra', 0, None, 'model.llm_neck was built and did not run'),
    (SequenceFirst, 'layer', 0, 'NBC', None),
    (SequenceFirst, 'norm', 0, 'BNC', None),
    (SequenceFirst, 'layer', 0, 'BNC', r'in dimension 0.*another layout'),
    (SequenceFirst, 'norm', 0, 'NBC', r'in dimension 1.*another layout'),
]


@pytest.mark.parametrize('encoder, after, index, layout, message', PLACES)
def test_a_place_without_effect_is_an_error(encoder, after, index, layout, message):
    model = LLMBlockInsert(encoder(), after, dict(NECK, layout=layout), index=index)
    with pytest.raises(UserError, match=message) if message else nullcontext():
        lm4ve.check(model, X)


class Rests(WalksThrough):
    """Leaves its layer out of every training step, as LayerDrop does of some."""

    def forward(self, x):
        return self.features(x) if not self.training else self.features[0](x)


def test_a_layer_may_rest_in_the_step_that_is_checked():
    lm4ve.check(LLMBlockInsert(Rests(), 'features.1', NECK), X)


# ----------------------------------------------------------- folded and unequal batches
class Transposes(nn.Module):
    """Has a layer that sees ``[N, B, C]``, ``[B * N / 2, 2, C]`` or ``[B, N, C]``."""

    def __init__(self, inner: str) -> None:
        super().__init__()
        self.inner, self.layer = inner, nn.Linear(16, 16)

    def forward(self, x):
        return self.forward_features(x)

    def forward_features(self, x):
        if self.inner == 'NBC':
            return self.layer(x.transpose(0, 1)).transpose(0, 1)
        if self.inner == 'frames':
            return self.layer(x.reshape(-1, 2, 16)).view_as(x)
        return self.layer(x)


def placed(inner: str, **options) -> nn.Module:
    """Return a :class:`Transposes` with a neck after its layer."""
    return LLMBlockInsert(Transposes(inner), 'layer', dict(NECK, **options))


def test_as_many_frames_as_samples_are_no_mistake_where_the_layout_is_named():
    x = torch.randn(2, 6, 16)
    placed('frames', layout='BNC')(x)
    with pytest.raises(UserError, match="layout='BNC' if frames or windows are folded"):
        placed('frames')(x)
    with pytest.raises(UserError, match="another layout .CLIP's"):
        placed('NBC')(x)


def test_time_attention_with_as_many_frames_as_samples_asks_for_the_layout():
    from transformers import TimesformerConfig, TimesformerModel

    sizes = dict(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    config = TimesformerConfig(**sizes, image_size=16, patch_size=8, num_frames=2)
    for after in ('temporal_attention', 'temporal_attention.attention.qkv'):
        place = f'encoder.layer.0.{after}'
        video = torch.randn(2, 2, 3, 16, 16)
        with pytest.raises(UserError, match="layout='BNC' if frames"):
            lm4ve.wrap(TimesformerModel(config), place, BLOCK)(video)
        lm4ve.wrap(TimesformerModel(config), place, BLOCK, layout='BNC')(video)
        # Once features have shown it, a batch of any size goes on.
        model = lm4ve.wrap(TimesformerModel(config), place, BLOCK)
        model(torch.randn(3, 2, 3, 16, 16))
        model(video)


def test_another_batch_size_through_a_part_of_the_encoder_is_no_mistake():
    model = placed('BNC')
    model(torch.randn(3, 17, 16))
    model.forward_features(torch.randn(17, 3, 16))
    model.forward_features(torch.randn(2, 17, 16))


# ----------------------------------------------------------- gone, or without gradients
class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def prune(model):
    model.layers = model.layers[:1]


def delete(model):
    del model.layers[1]


def replace(model):
    model.layers[1] = nn.Linear(16, 16)


@pytest.mark.parametrize('change', [prune, delete, replace])
def test_a_place_that_is_gone_is_an_error_of_the_next_forward(change):
    model = lm4ve.wrap(Stack(), 'layers.1', BLOCK)
    model(X)
    change(model)
    with pytest.raises(UserError, match="'layers.1' was replaced.*or removed"):
        model(X)
    with pytest.raises(UserError, match="'layers.1' was replaced.*or removed"):
        lm4ve.check(model, X)


def test_a_place_that_has_another_name_now_still_runs():
    model = lm4ve.wrap(Stack(), 'layers.1', BLOCK)
    del model.layers[0]
    lm4ve.check(model, X)


class FrozenByHand(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(3, 3)

    def forward(self, x):
        with torch.no_grad():
            x = self.encoder(x)
        return self.head(x)


def train_a_step(model: nn.Module) -> None:
    """Train all weights that are not frozen for a step of SGD on the input ``X``."""
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1
    )
    model(X).square().sum().backward()
    optimizer.step()


def test_a_neck_without_gradients_is_an_error_of_the_first_step():
    model = FrozenByHand(lm4ve.wrap(Stack(), 'layers.1', BLOCK))
    with pytest.raises(UserError, match='ran without gradients'):
        lm4ve.check(model, X)
    with pytest.raises(UserError, match='no_grad.*requires_grad_'):
        train_a_step(model)
    train_a_step(FrozenByHand(lm4ve.wrap(Stack(), 'layers.1', BLOCK, guard=False)))
    frozen = FrozenByHand(lm4ve.wrap(Stack(), 'layers.1', BLOCK))
    frozen.encoder.requires_grad_(False)
    train_a_step(frozen)


def test_necks_that_wait_for_a_step_do_not_disturb_each_other():
    models = [lm4ve.wrap(Stack(), 'layers.1', BLOCK) for _ in range(4)]
    with torch.no_grad():
        for model in models:
            model(X)
    del models[0], model
    gc.collect()
    for model in models:
        train_a_step(model)
    with pytest.raises(UserError, match='no_grad.*requires_grad_'):
        train_a_step(FrozenByHand(lm4ve.wrap(Stack(), 'layers.1', BLOCK)))


def test_a_process_without_a_part_of_the_mappers_needs_no_gradient():
    model = lm4ve.wrap(Stack(), 'layers.1', BLOCK)
    with torch.no_grad():
        model(X)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # As FSDP1 leaves them where they lie in another process's shard.
    for mapper in (model.llm_neck.mapper_in, model.llm_neck.mapper_out):
        mapper.weight.data = torch.empty(0)
    optimizer.step()


@pytest.mark.parametrize('reentrant', [False, True])
def test_a_look_without_gradients_and_a_recomputation_are_no_mistakes(reentrant):
    model = lm4ve.wrap(Stack(), 'layers.1', BLOCK)
    with torch.no_grad():
        model(X)  # in training mode, as a new model is

    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x):
            return checkpoint(self.model, x.requires_grad_(), use_reentrant=reentrant)

    before = model.llm_neck.mapper_in.weight.detach().clone()
    train_a_step(Recomputed())
    assert not torch.equal(model.llm_neck.mapper_in.weight, before)


def test_a_block_between_reversible_layers_is_an_error():
    pytest.importorskip('mmpretrain')
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    vit = dict(
        type='mmpretrain.RevVisionTransformer', arch=arch, img_size=16, patch_size=8
    )
    picture = torch.randn(2, 3, 16, 16)
    with pytest.raises(UserError, match='ran without gradients'):
        lm4ve.check(LLMBlockInsert(vit, 'layers.1', NECK), picture)
    lm4ve.check(
        LLMBlockInsert(vit, 'layers.1.attn', NECK), picture
    )  # which is computed again


@pytest.mark.parametrize('how', ['wrapper', 'method', 'part'])
def test_a_model_that_was_compiled_and_has_run_gets_its_block(how):
    model = Stack()
    called = model
    if how == 'wrapper':
        called = torch.compile(model, backend='eager')
    elif how == 'method':
        model.compile(backend='eager')
    else:
        model.layers[1].compile(backend='eager')
    before = called(X)
    lm4ve.wrap(model, 'layers.1', BLOCK)
    assert not torch.allclose(called(X), before)
    lm4ve.check(called, X)


def test_check_looks_behind_compiled_code():
    model = FrozenByHand(lm4ve.wrap(Stack(), 'layers.1', BLOCK))
    with pytest.raises(UserError, match='ran without gradients'):
        lm4ve.check(torch.compile(model, backend='eager'), X)
