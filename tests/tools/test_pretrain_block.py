"""A block of a formal language learns it, is the same for a seed, and loads as a block."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch

from lm4ve.blocks import LLMBlock
from lm4ve.errors import UserError
from tests.helpers.tools import load_tool, run_tool_here

TOOL = load_tool('pretrain_block.py')
MINILM = 'package:all-MiniLM-L6-v2'


def pretrain(out, *words):
    tiny = '--arch', 'bert:32x64x4', '--length', 16, '--symbols', 4, '--batch-size', 16
    run_tool_here(
        'pretrain_block.py', '--out', out, '--language', 'dyck', *tiny, *words
    )
    return json.loads((out / 'pretraining.json').read_text())['log']


def test_languages_determine_what_they_score():
    rng, args = np.random.default_rng(0), Namespace(symbols=5, depth=3)
    tokens, closing = TOOL['write_dyck'](rng, (20, 12), args)
    for row, closes in zip(tokens.tolist(), closing, strict=True):
        stack = []
        for token, close in zip(row, closes, strict=True):
            if close:
                assert token == 5 + stack.pop()
            else:
                stack.append(token)
                assert token < 5 and len(stack) <= 3
        assert not stack
    tokens, known = TOOL['write_copy'](rng, (20, 12), args)
    assert (tokens[:, 6:] == tokens[:, :6]).all() and (known.sum(1) == 6).all()
    tokens, known = TOOL['write_set'](rng, (20, 12), args)
    assert all(
        (t[k] == np.unique(t[:5])).all() for t, k in zip(tokens, known, strict=True)
    )


@pytest.mark.parametrize('arch', ['bert:32x64x4', 'llama:32x64x4'])
def test_pretraining_learns_and_loads(arch, tmp_path):
    words = '--steps', 60, '--lr', 0.01, '--arch', arch
    log = pretrain(tmp_path / 'a', *words)
    assert log[-1]['loss'] < 0.9 * log[0]['loss'] and log[-1]['accuracy'] > 50
    assert pretrain(tmp_path / 'b', *words)[-1]['loss'] == log[-1]['loss']
    blocks = [LLMBlock(str(tmp_path / name)) for name in 'ab']
    assert blocks[0].source['fingerprint'] == blocks[1].source['fingerprint']
    assert blocks[0].source['layers'] == [1]
    assert blocks[0](torch.ones(2, 3, 32)).isfinite().all()


def test_default_shape_is_that_of_minilm(tmp_path):
    TOOL['build_model']('bert:384x1536x12', 1, 9, 8).save_pretrained(tmp_path)
    ours, theirs = LLMBlock(str(tmp_path)), LLMBlock(MINILM)
    assert ours.source['config'] == theirs.source['config']
    with pytest.raises(UserError, match='FAMILY'):
        TOOL['build_model']('bert:384x1536', 1, 9, 8)
