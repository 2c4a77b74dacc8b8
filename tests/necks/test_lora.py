"""LoRA inside the block and on the mappers, by field and by peft from outside."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import initialize
from torch import nn

import lm4ve
from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.errors import CheckpointError, UserError
from lm4ve.necks import LLMBlockNeck
from tests.helpers.closeness import assert_equal_but_for_rounding
from tests.helpers.families import FAMILIES
from tests.helpers.necks.encoder import Encoder, batch
from tests.helpers.necks.equality import C, assert_same, tokens
from tests.helpers.necks.lora import (
    ARCH,
    build_neck,
    fill_adapters,
    train_three_steps,
)
from tests.helpers.processes import environment, free_port

peft = pytest.importorskip('peft')
#: The parts of a layer that can have an adapter.
BLOCK_TARGETS = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'mlp')
#: The ways to use the low rank of the block's input, beside 'off'.
LOW_RANK = ('auto', 'fold', 'absorb')


def adapters_of(neck: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of a neck's adapters that train, by name."""
    adapters = {}
    for name, parameter in neck.named_parameters():
        if 'lora_' in name and parameter.requires_grad:
            adapters[name] = parameter
    return adapters


@pytest.mark.parametrize(
    'queries', [slice(0, 1), None], ids=['one token', 'all tokens']
)
@pytest.mark.parametrize('target', BLOCK_TARGETS)
@pytest.mark.parametrize('low_rank', LOW_RANK)
def test_low_rank_paths_equal_the_plain_one_with_adapters_in_the_block(
    low_rank, target, queries
):
    lora = dict(r=2, targets=[target])
    plain = build_neck('off', block_lora=lora)
    short = build_neck(low_rank, block_lora=lora)
    assert adapters_of(plain)
    assert_same((plain, short), tokens(), queries=queries)


@pytest.mark.parametrize('low_rank', LOW_RANK)
def test_low_rank_paths_equal_the_plain_one_with_an_adapter_on_a_mapper(low_rank):
    lora = dict(r=2, targets=['mapper_in'])
    plain = build_neck('off', mapper_lora=lora)
    short = build_neck(low_rank, mapper_lora=lora)
    assert adapters_of(plain)
    assert_same((plain, short), tokens())


def test_adapters_equal_a_hand_written_update():
    rank = 2
    alpha = 3
    lora = dict(r=rank, alpha=alpha, targets=['k_proj'])
    neck = build_neck(block_lora=lora).double()
    plain = build_neck().double()

    for with_lora, without in zip(neck.block.layers, plain.block.layers, strict=True):
        adapted = with_lora.k_proj
        down = adapted.lora_A.default.weight
        up = adapted.lora_B.default.weight
        weight = without.k_proj.wrapped.weight
        assert torch.equal(weight, adapted.get_base_layer().weight)

        x = torch.randn(2, 3, 32).double()
        update = F.linear(F.linear(x, down), up) * alpha / rank
        torch.testing.assert_close(adapted(x), F.linear(x, weight) + update)
        without.k_proj.wrapped.weight.data = weight + up @ down * alpha / rank

    x = tokens().double()
    torch.testing.assert_close(neck(x), plain(x))


@pytest.mark.parametrize(
    'family', ['llama', 'opt', 'bert', 't5', 'falcon-40b', 'qwen3_moe']
)
@pytest.mark.bitwise
def test_a_fresh_adapter_changes_nothing_and_is_all_that_trains(family):
    options = dict(r=2, targets='all-linear')
    # The adapters of a block in 16 bits are stored in 32.
    half = LLMBlock(
        arch=FAMILIES[family], dtype='bfloat16', trainable='lora', lora=options
    )
    assert all(p.dtype == torch.float32 for p in half.parameters())
    neck = build_neck(block_lora=options, arch=FAMILIES[family])
    neck.block.init_weights()  # fresh adapters again
    plain = build_neck(arch=FAMILIES[family])
    assert torch.equal(neck(tokens()), plain(tokens()))
    names = [n for n, p in neck.block.named_parameters() if p.requires_grad]
    assert names and names == [
        n for n in neck.block.state_dict() if '_extra_state' not in n
    ]
    assert all('lora_' in n for n in names)
    assert not any(t.requires_grad for t in frozen_tensors(neck).values())


def test_a_host_initializes_neither_frozen_nor_adapter():
    def build() -> LLMBlockNeck:
        block = dict(
            type='LLMBlock',
            arch=ARCH,
            trainable='lora',
            lora=dict(targets='all-linear'),
        )
        return LLMBlockNeck(C, block, lora=dict(r=2))

    neck, fresh = build(), build()
    initialize(fill_adapters(neck), dict(type='TruncNormal', layer='Linear', std=0.5))
    torch.testing.assert_close(
        frozen_tensors(neck), frozen_tensors(fresh), rtol=0, atol=0
    )
    neck.init_weights()
    for name, p in adapters_of(neck).items():
        assert torch.equal(p, adapters_of(fresh)[name])
        # A fresh adapter is random times zero.
        assert p.any() == ('lora_A' in name)


@pytest.mark.parametrize('targets', [['q_proj', 'v_proj'], ['mapper_in', 'mapper_out']])
@pytest.mark.bitwise
def test_training_with_peft_from_outside_equals_the_field(targets):
    field = 'mapper_lora' if 'mapper_in' in targets else 'block_lora'
    inside = build_neck(**{field: dict(r=2, alpha=4)})
    for name, p in inside.named_parameters():
        p.requires_grad_('lora_' in name)  # peft freezes the rest
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets)
    outside = peft.get_peft_model(build_neck(), config)
    inner = outside.base_model.model
    assert adapters_of(inner).keys() == adapters_of(inside).keys()
    for name, p in adapters_of(inner).items():
        p.data.copy_(adapters_of(inside)[name])
    losses = train_three_steps(inside)
    assert losses == train_three_steps(outside) and len({*losses}) == 3


@pytest.mark.bitwise
def test_a_saved_model_of_peft_keeps_mappers_and_adapters(tmp_path):
    def build() -> nn.Module:
        model = lm4ve.wrap(Encoder(), 'blocks.0', dict(arch=ARCH))
        return peft.get_peft_model(
            model, peft.LoraConfig(r=2, target_modules=['q_proj'])
        )

    model = fill_adapters(build())
    lm4ve.save_pretrained(model, tmp_path)

    loaded = build()
    encoder = {k: v for k, v in model.state_dict().items() if 'llm_neck' not in k}
    loaded.load_state_dict(encoder, strict=False)
    lm4ve.from_pretrained(loaded, tmp_path)
    assert torch.equal(loaded(batch()), model(batch()))


@pytest.mark.bitwise
def test_peft_merges_and_unmerges_without_touching_copies():
    config = peft.LoraConfig(r=2, target_modules=['q_proj', 'k_proj', 'o_proj'])
    model = peft.get_peft_model(build_neck(), config)
    fill_adapters(model).eval()
    expected = model(tokens())
    untouched = copy.deepcopy(model)

    model.merge_adapter()
    copies = [untouched, copy.deepcopy(model), lm4ve.fuse(model)]
    model.unmerge_adapter()
    for each in (model, *copies):
        assert_equal_but_for_rounding(each(tokens()), expected, untouched)
    unloaded = model.merge_and_unload()
    for each in (unloaded, *copies):
        assert_equal_but_for_rounding(each(tokens()), expected, untouched)
    assert torch.equal(untouched(tokens()), expected)


@pytest.mark.parametrize('while_merged', ['nothing', 'second adapter', 'cast', 'copy'])
def test_unmerging_gives_the_frozen_weights_back_to_the_bit(while_merged):
    """What a sum in 16 bits has rounded away no difference brings back."""
    config = peft.LoraConfig(r=2, target_modules=['q_proj', 'k_proj', 'o_proj'])
    model = peft.get_peft_model(build_neck(dtype='bfloat16'), config)
    model.add_adapter('second', config)
    fill_adapters(model)
    expected = copy.deepcopy(model)

    model.merge_adapter(['default'])
    merged = frozen_tensors(model)
    changed = [n for n, w in frozen_tensors(expected).items() if (w != merged[n]).any()]
    assert len(changed) == 6  # three in each of two layers
    if while_merged == 'second adapter':
        model.merge_adapter(['second'])
    if while_merged == 'cast':
        model.half()
        expected.half()
    if while_merged == 'copy':
        model = copy.deepcopy(model)
    model.unmerge_adapter()
    torch.testing.assert_close(
        frozen_tensors(model), frozen_tensors(expected), rtol=0, atol=0
    )


@pytest.mark.parametrize('bias', ['all', 'lora_only'])
def test_peft_trains_no_frozen_bias(bias):
    arch = dict(FAMILIES['llama-bias'])
    config = peft.LoraConfig(r=2, target_modules=['k_proj'], bias=bias)
    model = peft.get_peft_model(build_neck(arch=arch), config)
    assert not any(t.requires_grad for t in frozen_tensors(model).values())


#: A family whose keys and values are one projection.
SHARED = dict(FAMILIES['gemma4-keys-as-values'], initializer_range=0.3)


@pytest.mark.parametrize(
    'low_rank, arch', [('off', ARCH), ('auto', ARCH), ('off', SHARED)]
)
@pytest.mark.bitwise
def test_fuse_merges_adapters_and_folds(low_rank, arch):
    neck = build_neck(low_rank, dict(r=2, targets='all-linear'), arch)
    neck = fill_adapters(
        LLMBlockNeck(C, neck.block, lora=dict(r=2, alpha=1), residual='both')
    ).eval()
    expected, fused = neck(tokens()), lm4ve.fuse(neck)
    assert_equal_but_for_rounding(fused(tokens()), expected, neck)
    assert type(fused.block).__name__ == 'FusedBlock'
    assert not any('lora' in n for n, _ in fused.named_modules())
    assert torch.equal(neck(tokens()), expected)


#: Adapters that differ from ``dict(r=2)`` in rank, factor or place.
REFUSED = [dict(r=3), dict(r=2, alpha=1), dict(r=2, targets=['q_proj'])]


@pytest.mark.parametrize('other', REFUSED)
def test_a_checkpoint_of_other_adapters_is_refused(other):
    state = build_neck(block_lora=dict(r=2)).state_dict()
    for neck in (build_neck(block_lora=other), build_neck()):
        with pytest.raises(CheckpointError, match='block.lora'):
            neck.load_state_dict(dict(state), strict=False)
    mapped = build_neck(mapper_lora=dict(r=2))
    with pytest.raises(CheckpointError, match='neck.lora'):
        build_neck().load_state_dict(mapped.state_dict(), strict=False)


def test_bad_fields_are_one_error():
    with pytest.raises(UserError, match="targets='w_proj' matches no.*0.q_proj"):
        build_neck(block_lora=dict(targets=['q_proj', 'w_proj']))
    with pytest.raises(UserError, match='targets is empty'):
        build_neck(mapper_lora=dict(targets=[]))
    with pytest.raises(UserError, match="block.trainable='none' with block.lora"):
        LLMBlockNeck(C, dict(type='LLMBlock', arch=ARCH, lora=dict(r=2)))


#: The program of each of two processes; its arguments are a port and the rank.
PROCESS = """
import sys, torch
from torch import distributed
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.nn.parallel import DistributedDataParallel as DDP
from tests.helpers.necks.lora import build_neck, train_three_steps

port, rank = sys.argv[1:]
address = f'tcp://127.0.0.1:{port}'
distributed.init_process_group('gloo', address, rank=int(rank), world_size=2)
build = lambda: build_neck(block_lora=dict(r=2, targets='all-linear'), mapper_lora=dict(r=2))
sharded = dict(use_orig_params=True, device_id=torch.device('cpu'))
losses = [train_three_steps(m) for m in (build(), DDP(build()), FSDP(build(), **sharded))]
assert losses[0] == losses[1] and len({*losses[0]}) == 3, losses
torch.testing.assert_close(torch.tensor(losses[2]), torch.tensor(losses[0]))
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_adapters_with_ddp_and_fsdp():
    port, env = str(free_port()), environment(real=True)
    jobs = [
        subprocess.Popen([sys.executable, '-c', PROCESS, port, r], env=env)
        for r in '01'
    ]
    assert [job.wait(300) for job in jobs] == [0, 0]
