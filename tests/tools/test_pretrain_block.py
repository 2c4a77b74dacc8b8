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
    tiny = '--language dyck --arch bert:32x64x4 --length 16 --symbols 4 --batch-size 16'
    run_tool_here('pretrain_block.py', '--out', out, *tiny.split(), *words)
    return json.loads((out / 'pretraining.json').read_text())['log']


def write(language: str):
    """Return twenty sequences of twelve tokens, and which of these are determined."""
    rng = np.random.default_rng(0)
    return TOOL[f'write_{language}'](rng, (20, 12), Namespace(symbols=5, depth=3))


def test_dyck_closes_brackets_in_the_order_of_a_stack():
    tokens, closing = write('dyck')
    for row, closes in zip(tokens.tolist(), closing, strict=True):
        stack = []
        for token, close in zip(row, closes, strict=True):
            if close:
                assert token == 5 + stack.pop()
            else:
                assert token < 5
                stack.append(token)
                assert len(stack) <= 3
        assert not stack


def test_copy_repeats_the_first_half():
    tokens, known = write('copy')
    assert np.array_equal(tokens[:, 6:], tokens[:, :6])
    assert (known.sum(axis=1) == 6).all()


def test_set_lists_the_symbols_before_it_in_order():
    for row, known in zip(*write('set'), strict=True):
        assert np.array_equal(row[known], np.unique(row[:5]))


@pytest.mark.bitwise
@pytest.mark.parametrize('arch', ['bert:32x64x4', 'llama:32x64x4'])
def test_pretraining_learns_loads_and_repeats_itself(arch, tmp_path):
    words = ['--steps', 60, '--lr', 0.01, '--arch', arch]
    log = pretrain(tmp_path / 'a', *words)
    assert log[-1]['loss'] < 0.9 * log[0]['loss']
    assert log[-1]['accuracy'] > 50
    log_again = pretrain(tmp_path / 'b', *words)
    assert log_again[-1]['loss'] == log[-1]['loss']
    block = LLMBlock(str(tmp_path / 'a'))
    again = LLMBlock(str(tmp_path / 'b'))
    assert block.source['fingerprint'] == again.source['fingerprint']
    assert block.source['layers'] == [1]
    assert block(torch.ones(2, 3, 32)).isfinite().all()


def test_default_shape_is_that_of_minilm(tmp_path):
    TOOL['build_model']('bert:384x1536x12', 1, 9, 8).save_pretrained(tmp_path)
    pretrained_here = LLMBlock(str(tmp_path))
    assert pretrained_here.source['config'] == LLMBlock(MINILM).source['config']
    with pytest.raises(UserError, match='FAMILY'):
        TOOL['build_model']('bert:384x1536', 1, 9, 8)
