"""What a walk through a host's table of backbones does with each entry."""

import inspect
from types import ModuleType

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, Registry
from torch.utils._pytree import tree_leaves

from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.joining import join
from lm4ve.necks.layouts import DEFAULTS
from tests.helpers.models import BLOCK
from tests.helpers.normed import note_norms
from tools.dev.write_tables import HOSTS_OWN, Entry, Refused, full_type


def check_listed(
    registry: Registry, package: ModuleType, entries: list[Entry | Refused]
) -> None:
    """Assert that the tables have every backbone of a host once, and no other."""
    registered = set(package.__all__)
    for name, cls in registry.module_dict.items():
        if inspect.isclass(cls) and cls.__module__.startswith(package.__name__):
            registered.add(name)
    listed = [entry.type for entry in entries if '.' not in entry.type]
    assert sorted(listed) == sorted(registered)


def check_refusal(
    refused: Refused, registry: Registry, host: str, sizes: dict, inputs
) -> None:
    """Assert that a refused backbone fails as its entry in the table says.

    Building it or running it on inputs raises the entry's error. An entry without an
    error is of a backbone that the host does not register here.
    """
    if not refused.error:
        assert refused.type not in registry.module_dict
        return
    with pytest.raises(Exception, match=refused.error):
        encoder = build_encoder(Entry(refused.type), host, sizes)
        encoder.eval()
        encoder(inputs)


def build_encoder(entry: Entry, host: str, sizes: dict) -> torch.nn.Module:
    """Build the backbone of an entry as it is before it gets a block, in training mode."""
    backbone = dict(type=full_type(entry.type, host), **entry.backbone, **sizes)
    if entry.norms:
        backbone = dict(type='lm4ve.WithoutNorms', norms=entry.norms, backbone=backbone)
    with DefaultScope.overwrite_default_scope(host):
        encoder = MODELS.build(backbone)
    encoder.train()
    return encoder


def with_block(
    entry: Entry, encoder: torch.nn.Module, inputs: tuple, neck_type=LLMBlockNeck
):
    """Return the encoder, its neck (or None, where the block stands inside) and its width."""
    neck = dict(type=neck_type, block=BLOCK, **entry.neck)
    if not entry.insert:
        feats = encoder(*inputs)
        encoder.forward = lambda *_, **__: feats  # it need not run again
        width = _width(entry, feats, entry.neck.get('index', -1))
        return encoder, dict(neck, in_channels=width), width
    feats = output_of(encoder, entry.insert['after'], inputs)
    width = _width(entry, feats, entry.insert.get('index', 0))
    neck.update(type=LLMBlockNeck, in_channels=width)
    insert = dict(type='LLMBlockInsert', backbone=encoder, neck=neck, **entry.insert)
    return MODELS.build(insert), None, width


def output_of(encoder: torch.nn.Module, name: str, inputs: tuple):
    """Return what a submodule returns while the encoder evaluates inputs."""
    outputs = []
    place = encoder.get_submodule(name)
    hook = place.register_forward_hook(lambda _, __, out: outputs.append(out))
    encoder.eval()
    with torch.no_grad():
        encoder(*inputs)
    hook.remove()
    encoder.train()
    return outputs[0]


def _width(entry: Entry, feats, index: int) -> int:
    """Return the number of channels of features, or of the indexed ones of several."""
    if not isinstance(feats, torch.Tensor):
        feats = feats[index]
    layout = entry.neck.get('layout')
    if layout is None:
        layout = DEFAULTS[feats.dim()]
    return feats.shape[layout.index('C')]


class Host(torch.nn.Module):
    """What every host does with an encoder and the necks after it."""

    def __init__(self, backbone: torch.nn.Module, neck, then: list) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.then = torch.nn.Sequential(*then)
        join(self)

    def forward(self, *inputs):
        feats = self.backbone(*inputs)
        if self.neck is not None:
            feats = self.neck(feats)
        return self.then(feats)


def neck_of(model: torch.nn.Module) -> LLMBlockNeck:
    """Return the first neck with a block in a model."""
    for module in model.modules():
        if isinstance(module, LLMBlockNeck):
            return module
    raise LookupError('the model has no neck')


@torch.no_grad()
def check_bypass(entry: Entry, host: str, sizes: dict, inputs: tuple) -> None:
    """Assert that a model whose neck adds nothing computes what the host computes.

    The neck adds nothing where its second mapper is zero and the outer residual goes
    around it.
    """
    model, plain = bypassed_and_plain(entry, host, sizes, inputs)
    missing, unknown = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unknown
    trained = {name for name, _ in model.named_parameters()}
    for name in trained & set(missing):
        assert 'mapper_' in name
    neck = neck_of(model)
    # The neck's norm stands for one of the host's.
    replaced = set(plain.state_dict()) - set(model.state_dict())
    norms = {name.rpartition('.')[0] for name in replaced}
    own_eps = set() if neck.norm is None else {neck.norm.eps}
    assert {plain.get_submodule(name).eps for name in norms} == own_eps

    neck.mapper_out.weight.zero_()
    neck.residual = 'outer'
    model.eval()
    plain.eval()
    outputs = tensors_of(model(*inputs))
    expected = tensors_of(plain(*inputs))
    if entry.type == 'DistilledVisionTransformer':
        del expected[len(outputs) :]  # DeiT also gives its second class token
    if entry.type == 'TIMMBackbone':
        expected = [tokens[:, 0] for tokens in expected]  # timm gives all tokens
    for ours, theirs in zip(outputs, expected, strict=True):
        bound = 1e-5 * max(1, pooled(theirs).abs().max().item())
        torch.testing.assert_close(pooled(ours), pooled(theirs), rtol=1e-4, atol=bound)


def bypassed_and_plain(entry: Entry, host: str, sizes: dict, inputs: tuple):
    """Return the host's model with a block, and the one without it."""
    config = {}
    if entry.plain is not HOSTS_OWN:
        config = entry.backbone | entry.plain
    kind = config.pop('type', entry.type)
    plain = build_encoder(Entry(kind, config), host, sizes)
    for parameter in plain.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model, neck, _ = with_block(entry, build_encoder(entry, host, sizes), inputs)
    vars(model).pop('forward', None)
    with DefaultScope.overwrite_default_scope(host):
        then = [MODELS.build(cfg) for cfg in entry.then]
        if neck is not None:
            model = Host(model, MODELS.build(neck), then)
            plain = Host(plain, None, then)
    return model, plain


def tensors_of(output) -> list[torch.Tensor]:
    """Return the tensors of nested tuples, lists and dicts, in order."""
    return [leaf for leaf in tree_leaves(output) if leaf is not None]


def pooled(x: torch.Tensor) -> torch.Tensor:
    """Average a map over its places; leave a vector as it is."""
    if x.dim() <= 2:
        return x
    return x.flatten(2).mean(-1)


def check_a_step(entry: Entry, model: torch.nn.Module, *batch) -> None:
    """Assert that all trained weights get a gradient, and that no norm comes before the neck."""
    neck = neck_of(model)
    normed = note_norms(neck)
    losses = model(*batch, mode='loss')
    sum(loss for name, loss in losses.items() if 'loss' in name).backward()
    assert normed
    assert not any(normed)
    for name, parameter in model.named_parameters():
        expected_unused = entry.unused and entry.unused in name
        if parameter.requires_grad and not expected_unused:
            assert parameter.grad is not None, name
    # The gradient has come through the block, whose own weights are frozen.
    assert neck.mapper_in.weight.grad.abs().sum() > 0
