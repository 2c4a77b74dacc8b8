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
from lm4ve.necks.usage import comes_from_norm
from tests.helpers.models import BLOCK
from tools.dev.write_tables import HOSTS_OWN, Entry, Refused, full_type


def check_listed(
    registry: Registry, package: ModuleType, entries: list[Entry | Refused]
) -> None:
    """The tables have every backbone of a host once, and no other."""
    registered = {
        name
        for name, c in registry.module_dict.items()
        if inspect.isclass(c) and c.__module__.startswith(package.__name__)
    }
    listed = [e.type for e in entries if '.' not in e.type]
    assert sorted(listed) == sorted(registered | {*package.__all__})


def check_refusal(
    refused: Refused, registry: Registry, host: str, sizes: dict, inputs
) -> None:
    """Building or running it fails with the words of its entry, or it is not registered."""
    if not refused.error:
        assert refused.type not in registry.module_dict
        return
    with pytest.raises(Exception, match=refused.error):
        encoder = build_encoder(Entry(refused.type), host, sizes)
        encoder.eval()
        encoder(inputs)


def build_encoder(entry: Entry, host: str, sizes: dict) -> torch.nn.Module:
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
        x = (
            feats
            if isinstance(feats, torch.Tensor)
            else feats[entry.neck.get('index', -1)]
        )
        return encoder, dict(neck, in_channels=_width(entry, x)), _width(entry, x)
    seen = []
    place = encoder.get_submodule(entry.insert['after'])
    hook = place.register_forward_hook(lambda _, __, out: seen.append(out))
    encoder.eval()
    with torch.no_grad():
        encoder(*inputs)
    hook.remove()
    encoder.train()
    x = (
        seen[0]
        if isinstance(seen[0], torch.Tensor)
        else seen[0][entry.insert.get('index', 0)]
    )
    neck = dict(neck, type=LLMBlockNeck, in_channels=_width(entry, x))
    insert = dict(type='LLMBlockInsert', backbone=encoder, neck=neck, **entry.insert)
    return MODELS.build(insert), None, _width(entry, x)


def _width(entry: Entry, x: torch.Tensor) -> int:
    return x.shape[(entry.neck.get('layout') or DEFAULTS[x.dim()]).index('C')]


class Host(torch.nn.Module):
    """What every host does with an encoder and the necks after it."""

    def __init__(self, backbone: torch.nn.Module, neck, then: list) -> None:
        super().__init__()
        self.backbone, self.neck, self.then = backbone, neck, torch.nn.Sequential(*then)
        join(self)

    def forward(self, *inputs):
        feats = self.backbone(*inputs)
        return self.then(self.neck(feats) if self.neck else feats)


@torch.no_grad()
def check_bypass(entry: Entry, host: str, sizes: dict, inputs: tuple) -> None:
    """With a second mapper of zero and the outer residual, the host's own weights and result."""
    own = {} if entry.plain is HOSTS_OWN else entry.backbone | entry.plain
    plain = Entry(own.pop('type', entry.type), own)
    plain = build_encoder(plain, host, sizes)
    for p in plain.parameters():
        p.add_(torch.randn_like(p), alpha=0.3)
    model, neck, _ = with_block(entry, build_encoder(entry, host, sizes), inputs)
    vars(model).pop('forward', None)
    with DefaultScope.overwrite_default_scope(host):
        then = [MODELS.build(cfg) for cfg in entry.then]
        if neck:
            model, plain = (
                Host(model, MODELS.build(neck), then),
                Host(plain, None, then),
            )
    missing, unknown = model.load_state_dict(plain.state_dict(), strict=False)
    block = next(m for m in model.modules() if isinstance(m, LLMBlockNeck))
    trained = {n for n, _ in model.named_parameters()}
    assert not unknown and all('mapper_' in n for n in trained & {*missing})
    norms = {
        n.rpartition('.')[0] for n in {*plain.state_dict()} - {*model.state_dict()}
    }
    assert {plain.get_submodule(n).eps for n in norms} == {
        m.eps for m in [block.norm] if m
    }
    block.mapper_out.weight.zero_()
    block.residual = 'outer'
    model.eval(), plain.eval()
    mine, theirs = (
        [x for x in tree_leaves(m(*inputs)) if x is not None] for m in (model, plain)
    )
    # DeiT also gives its second class token, timm all tokens.
    for a, b in zip(mine, theirs, strict=entry.type != 'DistilledVisionTransformer'):
        b = b[:, 0] if entry.type == 'TIMMBackbone' else b
        a, b = (x.flatten(2).mean(-1) if x.dim() > 2 else x for x in (a, b))
        torch.testing.assert_close(
            a, b, rtol=1e-4, atol=1e-5 * max(1, b.abs().max().item())
        )


def check_a_step(entry: Entry, model: torch.nn.Module, *batch) -> None:
    """Train a step: all has a gradient, and nothing was normed before."""
    neck = next(m for m in model.modules() if isinstance(m, LLMBlockNeck))
    normed = []
    neck.register_forward_pre_hook(
        lambda m, x: normed.append(comes_from_norm(m.pick(x[0]).grad_fn))
    )
    losses = model(*batch, mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    assert normed and not any(normed)
    unused = [
        n for n, p in model.named_parameters() if p.requires_grad and p.grad is None
    ]
    unused = [n for n in unused if not entry.unused or entry.unused not in n]
    assert not unused, unused[:3]
    # The gradient has come through the block, whose own weights are frozen.
    assert neck.mapper_in.weight.grad.abs().sum() > 0
