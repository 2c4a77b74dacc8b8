"""The cost of configs of every task, at full size, without any file of theirs."""

import json

import pytest
import torch
from mmengine.config import Config

from lm4ve.commands.cost import main
from lm4ve.cost import Rates, cost_of_step, predict_seconds
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from tests.helpers.tasks import CONFIGS

#: LLaMA-7B's last layer: four square projections, three of the MLP, two norms and the last.
LLAMA = 4 * 4096**2 + 3 * 4096 * 11008 + 3 * 4096
VIT_S = 22_050_664


@pytest.fixture(scope='module')
def vit():
    pytest.importorskip('mmpretrain')
    return [
        cost_of_step(read_config(CONFIGS / f'lm4ve/vit-s{s}_in1k.py'), 32) for s in ('', '_llama')
    ]


def test_a_block_of_llama_is_frozen_and_its_mappers_train(vit):
    plain, other = vit
    assert (plain.trainable, plain.frozen) == (VIT_S, 0)
    assert other.frozen == LLAMA
    assert other.trainable == VIT_S + 2 * 384 * 4096
    # In a checkpoint: it, its average and two numbers of AdamW, and no frozen weight.
    assert other.checkpoint == pytest.approx(16 * other.trainable, rel=1e-3)


def test_operations_are_those_of_the_formulas(vit):
    """docs/results/performance.md: 442 GMAC of ViT-S, 28.0 of the neck at batch 32."""
    plain, other = vit
    assert plain.counts.total_macs() == pytest.approx(445.4e9, rel=1e-3)
    extra = other.counts.total_macs() - plain.counts.total_macs()
    assert extra == pytest.approx(28.0e9, rel=2e-3)


def test_rates_turn_operations_and_bytes_into_seconds(vit):
    plain, other = vit
    quick = dict(float32=1e30, float16=1e30)
    slow_memory = Rates(quick, 1e30, 1e30, 1e9)
    moved = sum(plain.counts.product_bytes.values()) + 28 * plain.trainable
    assert predict_seconds(plain, slow_memory) == pytest.approx(moved / 1e9)
    others = sum((plain.counts.other_bytes + plain.counts.large_bytes).values())
    assert predict_seconds(plain, Rates(quick, 1e9, 1e9, 1e30)) == pytest.approx(others / 1e9)
    macs = {k: v for k, v in other.counts.macs.items() if k.dtype == torch.float16}
    only_half = Rates(dict(float32=1e30, float16=1e9), 1e30, 1e30, 1e30)
    assert predict_seconds(other, only_half) == pytest.approx(sum(macs.values()) / 1e9)
    with pytest.raises(UserError, match='rates know float32, but the step computes in float16'):
        predict_seconds(other, Rates(dict(float32=1.0), 1.0, 1.0, 1.0))


def test_a_room_of_sqa3d_is_counted():
    cfg = Config.fromfile(CONFIGS / '_base_/vision_language/scanqa.py')
    # VoteNet chooses points one by one in a loop, which takes a minute to count.
    cfg.model.object_encoder = dict(type='lm4ve.StoredObjects', in_channels=256)
    block = dict(type='LLMBlock', checkpoint='data/llm/llama-7b')
    cfg.model.neck = dict(type='LLMBlockNeck', in_channels=256, block=block, norm_cfg=None)
    cost = cost_of_step(cfg, 1)
    assert cost.frozen == LLAMA and cost.counts.total_macs('block') > 256 * LLAMA


def test_the_command_compares_two_configs(tmp_path, capsys):
    rates = tmp_path / 'rates.json'
    found = dict(macs=dict(float32=1e11, float16=4e11), bytes=1e10, large=1e10, memory=1e10)
    rates.write_text(json.dumps(found))
    names = [str(CONFIGS / f'motion/vectornet{s}_argoverse1.py') for s in ('_llama', '')]
    main([names[0], '--base', names[1], '--batch', '2', '--rates', str(rates)])
    said = ' '.join(capsys.readouterr().out.split())
    assert 'a training step of 2' in said and f'{LLAMA:,} frozen' in said
    assert 'step ratio to the base: ' in said and 'predicted by the rates' in said


def test_a_wrong_file_of_rates_is_refused(tmp_path):
    (tmp_path / 'rates.json').write_text('[]')
    with pytest.raises(UserError, match='Fix: run tools/analysis/cost.py CONFIG --calibrate'):
        main([str(CONFIGS / 'motion/vectornet_argoverse1.py'), '--rates', f'{tmp_path}/rates.json'])


def test_unknown_weights_need_a_configuration():
    cfg = read_config(CONFIGS / 'motion/vectornet_llama_argoverse1.py')
    cfg.model.neck.block.checkpoint = 'data/llm/nobody'
    with pytest.raises(UserError, match="'data/llm/nobody' does not exist"):
        cost_of_step(cfg)
