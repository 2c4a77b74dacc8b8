"""Checks the weights that the training starts from: which file, and which layers of it."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS, init_default_scope

from lm4ve.blocks.language_model import LanguageModel
from lm4ve.blocks.record import describe
from lm4ve.dry_run.finding import Finding
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import listing
from lm4ve.llm.readers import file_of
from lm4ve.runner.config.fields import dicts_in


def check_weights(plan: Plan) -> Finding:
    """Read the layers of every block, and name the other files of weights.

    Raises:
        UserError: A layer is missing or damaged.
    """
    cfg = plan.cfg
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    parts = []
    fingerprints = []
    for _, node in dicts_in(cfg.model, 'model'):
        name = str(node.get('type')).rpartition('.')[2]
        if name == 'LLMBlock':
            block = MODELS.build(node)
            fingerprints.append(block.source['fingerprint'])
            parts.append(describe(block.source) + _origin(node, block.source['layers']))
        elif name == 'Pretrained':
            parts.append(f"init_cfg.checkpoint '{node['checkpoint']}'")
    if cfg.get('load_from'):
        parts.append(f"load_from '{cfg.load_from}'")
    text = '; '.join(parts) or 'no block, and no weights from files'
    return Finding(text, facts={'fingerprints of blocks': tuple(fingerprints)})


def _origin(block: Mapping[str, Any], layers: list[int]) -> str:
    """Return ' from ' and the names of the files that have a block's layers, or ''.

    Args:
        block (Mapping): The config of the block.
        layers (list[int]): Its layers, from 0.
    """
    checkpoint = block.get('checkpoint')
    if checkpoint is None or block.get('pretrained', True) is False:
        return ''
    model = LanguageModel(checkpoint, None)
    if model.files is None:
        return ''
    files = set()
    for stored, read in model.files.weights.items():
        numbers = [int(part) for part in stored.split('.') if part.isdecimal()]
        if numbers and numbers[0] in layers:
            files.add(file_of(read))
    names = sorted(name for name in files if name is not None)
    if not names:
        return ''
    return f' from {listing(names, 3)}'
