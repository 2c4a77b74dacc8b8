"""What a walk through a host's table of backbones does with each entry."""

import inspect
from types import ModuleType

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, Registry

from lm4ve.necks import LLMBlockNeck
from lm4ve.necks.layouts import DEFAULTS
from lm4ve.necks.usage import comes_from_norm
from tests.helpers.models import BLOCK
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here
from tools.dev.backbones import Entry, Refused, full_type
from tools.dev.family_table import with_tables


def check_unlisted(registry, package: ModuleType, entries: list, monkeypatch) -> None:
    """Every backbone of a host is in a table, and one that the host adds is missed."""
    assert _unlisted(registry, package, entries) == set()
    new = type('NewBackbone', (torch.nn.Module,), {'__module__': f'{package.__name__}.new'})
    monkeypatch.setitem(registry.module_dict, 'NewBackbone', new)
    assert _unlisted(registry, package, entries) == {'NewBackbone'}


def _unlisted(registry: Registry, package: ModuleType, entries: list[Entry | Refused]) -> set[str]:
    """Names that only the host has, or only the tables."""
    registered = {
        name
        for name, c in registry.module_dict.items()
        if inspect.isclass(c) and c.__module__.startswith(package.__name__)
    }
    listed = [e.type for e in entries if '.' not in e.type]
    assert len(listed) == len({*listed})
    return (registered | {*package.__all__}) ^ {*listed}


def check_page(path: str, tables: dict) -> None:
    """The command finds every page as the tables are, and would see a change of this one."""
    run_tool_here('dev/write_tables.py', '--check')
    page = (ROOT / path).read_text(encoding='utf-8')
    for make in tables.values():
        row = make().splitlines()[-1]
        assert row in page
        assert with_tables(page.replace(row, ''), tables) == page


def check_refusal(refused: Refused, registry: Registry, host: str, sizes: dict, inputs) -> None:
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


def with_block(entry: Entry, encoder: torch.nn.Module, inputs: tuple, neck_type=LLMBlockNeck):
    """Return the encoder, its neck (or None, where the block stands inside) and its width."""
    neck = dict(type=neck_type, block=BLOCK, **entry.neck)
    if not entry.insert:
        feats = encoder(*inputs)
        encoder.forward = lambda *_, **__: feats  # it need not run again
        x = feats if isinstance(feats, torch.Tensor) else feats[entry.neck.get('index', -1)]
        return encoder, dict(neck, in_channels=_width(entry, x)), _width(entry, x)
    seen = []
    place = encoder.get_submodule(entry.insert['after'])
    hook = place.register_forward_hook(lambda _, __, out: seen.append(out))
    encoder.eval()
    with torch.no_grad():
        encoder(*inputs)
    hook.remove()
    encoder.train()
    x = seen[0] if isinstance(seen[0], torch.Tensor) else seen[0][entry.insert.get('index', 0)]
    neck = dict(neck, type=LLMBlockNeck, in_channels=_width(entry, x))
    insert = dict(type='LLMBlockInsert', backbone=encoder, neck=neck, **entry.insert)
    return MODELS.build(insert), None, _width(entry, x)


def _width(entry: Entry, x: torch.Tensor) -> int:
    return x.shape[(entry.neck.get('layout') or DEFAULTS[x.dim()]).index('C')]


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
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    unused = [n for n in unused if not entry.unused or entry.unused not in n]
    assert not unused, unused[:3]
    # The gradient has come through the block, whose own weights are frozen.
    assert neck.mapper_in.weight.grad.abs().sum() > 0
