"""Whether a host's head reads what its neck gives: a vector for each sample, or a map.

Nothing in a config or in a class says what a head reads. So it is tried on zeros when
the model is built: a mistake is found before data are loaded, and not by torch's words
about matrices in the first step.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lm4ve.errors import UserError
from lm4ve.necks.neck import LLMBlockNeck

_TABLE = 'docs/guides/backbones.md has the fields of each backbone'


class _NeckInHost(NamedTuple):
    """A neck, its name in the host's model, and the necks that read its output."""

    neck: LLMBlockNeck
    name: str
    followers: Sequence[Any]


def check_head(model: Any) -> None:
    """Check that the head of a host's model reads the output of its neck.

    A head is judged only if it gives scores ``[B, classes]`` for some kind of features,
    as the classification heads of mmpretrain do. Others, and necks that return several
    maps, are left to the first step.

    Args:
        model (nn.Module): A host's model, perhaps with ``neck`` and ``head``.

    Raises:
        UserError: The head, or a neck between, reads features of another kind or width.
    """
    head = getattr(model, 'head', None)
    found = _find_neck(model)
    if head is None or found is None:
        return
    neck = found.neck
    if neck.keep_others:
        return
    readers = [*found.followers, head]
    with _evaluating(readers), torch.no_grad():
        reads = _kinds_read(readers, neck.in_channels)
        if not reads:
            _check_width(found, readers)
            return
    gives_vector = neck.out_type != 'raw'
    if gives_vector and 'vector' not in reads:
        _refuse_vector(found, readers)
    elif not gives_vector and reads == {'vector'}:
        raise UserError(
            f"{found.name}.out_type='raw' gives all tokens or a map, but {_class_of(head)} reads "
            f"a vector for each sample. Fix: {found.name}.out_type='avg_featmap', or 'cls_token' "
            f'if the encoder has a class token ({_TABLE}).'
        )


def _find_neck(model: Any) -> _NeckInHost | None:
    """Find the neck with a block in a host's ``neck``, which may be a sequence of necks."""
    neck = getattr(model, 'neck', None)
    if isinstance(neck, LLMBlockNeck):
        return _NeckInHost(neck, 'model.neck', [])
    if not isinstance(neck, nn.Sequential):
        return None
    parts = list(neck)
    for place, part in enumerate(parts):
        if isinstance(part, LLMBlockNeck):
            return _NeckInHost(part, f'model.neck.{place}', parts[place + 1 :])
    return None


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode, so that trying them changes nothing of them."""
    modes = []
    for module in modules:
        for part in module.modules():
            modes.append((part, part.training))
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _kinds_read(readers: Sequence[Any], channels: int) -> set[str]:
    """Return the kinds of features that necks and a head turn into scores.

    Args:
        readers (Sequence[nn.Module]): The necks after the one with the block, and the
            head, all in evaluation mode.
        channels (int): The width of the features.

    Returns:
        set[str]: Some of 'vector', 'tokens' and 'map'.
    """
    features = _one_of_each(channels, readers[-1])
    return {kind for kind, feats in features.items() if _gives_scores(readers, feats)}


def _one_of_each(channels: int, head: nn.Module) -> dict[str, Tensor]:
    """Return zeros for two samples as a vector each, as tokens and as a map."""
    parameter = next(head.parameters(), torch.zeros(0))
    return dict(
        vector=parameter.new_zeros(2, channels),
        tokens=parameter.new_zeros(2, 4, channels),
        map=parameter.new_zeros(2, channels, 2, 2),
    )


def _gives_scores(readers: Sequence[Any], feats: Tensor) -> bool:
    """Return whether modules, one after the other, make scores ``[B, classes]`` of features."""
    out: Any = (feats,)
    try:
        with _silent_fake_tensors():
            for reader in readers:
                out = reader(out)
    except Exception:
        # Libraries raise anything about a shape that does not fit.
        return False
    return isinstance(out, Tensor) and out.dim() == 2 and len(out) == len(feats)


@contextmanager
def _silent_fake_tensors() -> Iterator[None]:
    """Let torch log no traceback of a shape that does not fit.

    A dry run builds the model of fake tensors, which log before they raise.
    """
    logger = logging.getLogger('torch._subclasses.fake_tensor')
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _check_width(found: _NeckInHost, readers: Sequence[Any]) -> None:
    """Check the width of a head that reads nothing as wide as the neck's output.

    Raises:
        UserError: It reads features as wide as its field ``in_channels``.
    """
    head = readers[-1]
    channels = found.neck.in_channels
    width = getattr(head, 'in_channels', channels)
    if width == channels or not _kinds_read(readers, width):
        return
    raise UserError(
        f'{found.name}.in_channels={channels} and model.head.in_channels={width} differ. '
        "Fix: set both to the width of the backbone's features."
    )


def _refuse_vector(found: _NeckInHost, readers: Sequence[Any]) -> None:
    """Refuse a neck that gives a vector to modules that read a map or tokens.

    Args:
        found (_NeckInHost): The neck.
        readers (Sequence[nn.Module]): The necks after it, and the head.

    Raises:
        UserError: Always. It names the necks between if the head alone would read a
            vector; else the head too.
    """
    head = readers[-1]
    with _evaluating([head]), torch.no_grad():
        head_reads_vector = 'vector' in _kinds_read([head], found.neck.in_channels)
    fix = f"{found.name}.out_type='raw'"
    followers = ', '.join(_class_of(part) for part in found.followers)
    if followers and head_reads_vector:
        readers_of_map = f'{followers} after it reads'
        fix = f'leave {followers} out, or {fix}'
    elif followers:
        readers_of_map = f'{followers} and {_class_of(head)} after it read'
    else:
        readers_of_map = f'{_class_of(head)} reads'
    raise UserError(
        f"{found.name}.out_type='{found.neck.out_type}' gives a vector, but "
        f'{readers_of_map} a map or tokens. Fix: {fix}.'
    )


def _class_of(module: Any) -> str:
    """Return the name of a module's class."""
    return type(module).__name__
