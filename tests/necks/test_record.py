"""Records of necks: where several share a block, and where their norm was replaced."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lm4ve.blocks import LLMBlock
from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError
from lm4ve.necks import LLMBlockNeck
from tests.helpers.necks.tiny import BLOCK, C
from tests.helpers.old_records import encode_old

CONTROL = dict(type='MLPBlock', embed_dims=32)


def lone(residual: str) -> LLMBlockNeck:
    """Return a neck with a block of its own."""
    return LLMBlockNeck(C, BLOCK, residual=residual)


def sharing(*residuals: str) -> nn.ModuleList:
    """Return necks that were built by hand on one block."""
    block = LLMBlock(arch=BLOCK['arch'])
    necks = [LLMBlockNeck(C, block, residual=residual) for residual in residuals]
    return nn.ModuleList(necks)


@pytest.mark.parametrize('others', [('inner', 'inner'), ('none', 'none')])
def test_necks_that_share_a_block_record_each_its_own_settings(others):
    state = sharing('none', 'inner').state_dict()
    sharing('none', 'inner').load_state_dict(state)
    with pytest.raises(CheckpointError, match='residual'):
        sharing(*others).load_state_dict(state)


@pytest.mark.parametrize('number, residual', enumerate(['none', 'inner', 'outer']))
def test_a_neck_of_a_shared_block_goes_with_a_lone_one_of_its_settings(
    number, residual
):
    shared = sharing('none', 'inner', 'outer')[number]
    lone(residual).load_state_dict(shared.state_dict(), strict=False)
    shared.load_state_dict(lone(residual).state_dict(), strict=False)
    with pytest.raises(CheckpointError, match='residual'):
        lone('both').load_state_dict(shared.state_dict(), strict=False)
    with pytest.raises(CheckpointError, match='residual'):
        shared.load_state_dict(lone('both').state_dict(), strict=False)


def test_the_second_neck_may_share_the_block_that_the_first_has_built():
    first = lone('none')
    second = LLMBlockNeck(C, first.block, residual='inner')
    lone('none').load_state_dict(first.state_dict(), strict=False)
    lone('inner').load_state_dict(second.state_dict(), strict=False)


def test_a_neck_that_is_gone_leaves_its_block_to_the_next():
    block = LLMBlock(arch=BLOCK['arch'])
    first = LLMBlockNeck(C, block, residual='none')
    del first
    second = LLMBlockNeck(C, block, residual='inner')
    assert second.state_dict().keys() == lone('inner').state_dict().keys()
    lone('inner').load_state_dict(second.state_dict())


def test_copies_of_necks_that_share_a_block_record_the_same():
    necks = sharing('none', 'inner')
    for twin in (copy.deepcopy(necks), pickle.loads(pickle.dumps(necks))):
        state = twin.state_dict()
        sharing('none', 'inner').load_state_dict(state)
        with pytest.raises(CheckpointError, match='residual'):
            sharing('inner', 'inner').load_state_dict(state)


@pytest.mark.parametrize('block', [BLOCK, CONTROL])
def test_a_record_has_the_norm_of_the_config_whatever_stands_there(block):
    def build(**norm_cfg) -> LLMBlockNeck:
        return LLMBlockNeck(C, block, norm_cfg=norm_cfg)

    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(build(type='BN'))
    build(type='BN').load_state_dict(synchronized.state_dict())
    synchronized.load_state_dict(build(type='BN').state_dict())
    compiled = build(type='LN')
    compiled.norm = torch.compile(compiled.norm, backend='eager')
    assert compiled.record() == build(type='LN').record()
    with pytest.raises(CheckpointError, match='norm_cfg'):
        build(type='BN', eps=0.1).load_state_dict(synchronized.state_dict())


def test_a_control_of_an_older_version_may_have_recorded_a_synchronized_norm():
    def build(**norm_cfg) -> LLMBlockNeck:
        return LLMBlockNeck(C, CONTROL, norm_cfg=dict(type='BN', **norm_cfg))

    old = build().state_dict()
    del old[KEY]
    old['neck_settings'] = encode_old(dict(norm='SyncBatchNorm(eps=1e-05)'))
    build().load_state_dict(old)
    with pytest.raises(CheckpointError, match='norm_cfg'):
        build(eps=0.1).load_state_dict(old)


def test_groups_of_a_norm_are_compared():
    def build(groups: int) -> LLMBlockNeck:
        return LLMBlockNeck(C, CONTROL, norm_cfg=dict(type='GN', num_groups=groups))

    build(2).load_state_dict(build(2).state_dict())
    with pytest.raises(CheckpointError, match='norm_cfg.*num_groups'):
        build(2).load_state_dict(build(4).state_dict())


class OwnBlock(nn.Module):
    """A block of somebody's own around two of ours, of which no neck need know."""

    embed_dims = 32

    def __init__(self, seed: int) -> None:
        super().__init__()
        arch = BLOCK['arch']
        self.first = LLMBlock(arch=arch)
        self.second = LLMBlock(arch=arch, seed=seed)

    def forward(self, x, padding_mask=None, queries=None):
        return self.second(self.first(x, padding_mask), padding_mask, queries)


def test_every_block_within_another_module_is_compared():
    state = LLMBlockNeck(C, OwnBlock(0)).state_dict()
    LLMBlockNeck(C, OwnBlock(0)).load_state_dict(state)
    with pytest.raises(CheckpointError, match='other frozen weights'):
        LLMBlockNeck(C, OwnBlock(1)).load_state_dict(state, strict=False)
