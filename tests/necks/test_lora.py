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
from tests.helpers.necks.lora import ARCH, grown, make, train
from tests.helpers.processes import environment, free_port

peft = pytest.importorskip('peft')
ALL = ('q_proj', 'k_proj', 'v_proj', 'o_proj', 'mlp')


def pieces(neck: nn.Module) -> dict:
    return {
        n: p for n, p in neck.named_parameters() if 'lora_' in n and p.requires_grad
    }


@pytest.mark.parametrize('target', ALL)
@pytest.mark.parametrize('low_rank', ['auto', 'fold', 'absorb'])
def test_low_rank_paths_equal_off_with_adapters(target, low_rank):
    pair = [grown(make(m, dict(r=2, targets=[target]))) for m in ('off', low_rank)]
    assert pieces(pair[0])
    for queries in (slice(0, 1), None):
        assert_same(pair, tokens(), queries=queries)
    mapped = dict(r=2, targets=['mapper_in'])
    assert_same([make(m, mapped=mapped) for m in ('off', low_rank)], tokens())


def test_adapters_equal_a_hand_written_update():
    neck = grown(make(lora=dict(r=2, alpha=3, targets=['k_proj']))).double()
    plain = make().double()
    for with_lora, without in zip(neck.block.layers, plain.block.layers, strict=True):
        part = with_lora.k_proj
        a, b = part.lora_A.default.weight, part.lora_B.default.weight
        weight = without.k_proj.wrapped.weight
        assert torch.equal(weight, part.get_base_layer().weight)
        x = torch.randn(2, 3, 32).double()
        expected = F.linear(x, weight) + F.linear(F.linear(x, a), b) * 3 / 2
        torch.testing.assert_close(part(x), expected)
        without.k_proj.wrapped.weight.data = weight + b @ a * 3 / 2
    x = tokens().double()
    torch.testing.assert_close(neck(x), plain(x))


@pytest.mark.parametrize(
    'family', ['llama', 'gpt2', 'bert', 't5', 'falcon-40b', 'qwen3_moe']
)
@pytest.mark.bitwise
def test_a_fresh_adapter_changes_nothing_and_is_all_that_trains(family):
    options = dict(r=2, targets='all-linear')
    half = LLMBlock(
        arch=FAMILIES[family], dtype='bfloat16', trainable='lora', lora=options
    )
    assert all(p.dtype == torch.float32 for p in half.parameters())
    neck, plain = make(lora=options, arch=FAMILIES[family]), make(arch=FAMILIES[family])
    neck.block.init_weights()
    assert torch.equal(neck(tokens()), plain(tokens()))
    names = [n for n, p in neck.block.named_parameters() if p.requires_grad]
    assert names and names == [
        n for n in neck.block.state_dict() if 'llm_source' not in n
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
    initialize(grown(neck), dict(type='TruncNormal', layer='Linear', std=0.5))
    torch.testing.assert_close(
        frozen_tensors(neck), frozen_tensors(fresh), rtol=0, atol=0
    )
    neck.init_weights()
    for name, p in pieces(neck).items():
        assert torch.equal(p, pieces(fresh)[name]) and p.any() == ('lora_A' in name)


@pytest.mark.parametrize('targets', [['q_proj', 'v_proj'], ['mapper_in', 'mapper_out']])
@pytest.mark.bitwise
def test_training_with_peft_from_outside_equals_the_field(targets):
    inside = make(
        **{'mapped' if 'mapper_in' in targets else 'lora': dict(r=2, alpha=4)}
    )
    for name, p in inside.named_parameters():
        p.requires_grad_('lora_' in name)  # peft freezes the rest
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets)
    outside = peft.get_peft_model(make(), config)
    inner = outside.base_model.model
    assert pieces(inner).keys() == pieces(inside).keys()
    for name, p in pieces(inner).items():
        p.data.copy_(pieces(inside)[name])
    losses = train(inside)
    assert losses == train(outside) and len({*losses}) == 3


@pytest.mark.bitwise
def test_a_saved_model_of_peft_keeps_mappers_and_adapters(tmp_path):
    def build() -> nn.Module:
        model = lm4ve.wrap(Encoder(), 'blocks.0', dict(arch=ARCH))
        return peft.get_peft_model(
            model, peft.LoraConfig(r=2, target_modules=['q_proj'])
        )

    model, again = grown(build()), build()
    lm4ve.save_pretrained(model, tmp_path)
    plain = {k: v for k, v in model.state_dict().items() if 'llm_neck' not in k}
    again.load_state_dict(plain, strict=False)  # the frozen encoder
    lm4ve.from_pretrained(again, tmp_path)
    assert torch.equal(again(batch()), model(batch()))


@pytest.mark.bitwise
def test_peft_merges_and_unmerges_without_touching_copies():
    config = peft.LoraConfig(r=2, target_modules=['q_proj', 'k_proj', 'o_proj'])
    model = peft.get_peft_model(make(), config)
    expected, twin = grown(model).eval()(tokens()), copy.deepcopy(model)
    model.merge_adapter()
    copies = twin, copy.deepcopy(model), lm4ve.fuse(model)
    for change in (model.unmerge_adapter, model.merge_and_unload):
        for each in (change() or model, *copies):
            assert_equal_but_for_rounding(each(tokens()), expected, twin)
    assert torch.equal(twin(tokens()), expected)


@pytest.mark.parametrize('bias', ['all', 'lora_only'])
def test_peft_trains_no_frozen_bias(bias):
    arch = dict(FAMILIES['llama-bias'])
    config = peft.LoraConfig(r=2, target_modules=['k_proj'], bias=bias)
    model = peft.get_peft_model(make(arch=arch), config)
    assert not any(t.requires_grad for t in frozen_tensors(model).values())


SHARED = dict(FAMILIES['gemma4-keys-as-values'], initializer_range=0.3)


@pytest.mark.parametrize(
    'low_rank, arch', [('off', ARCH), ('auto', ARCH), ('off', SHARED)]
)
@pytest.mark.bitwise
def test_fuse_merges_adapters_and_folds(low_rank, arch):
    neck = make(low_rank, dict(r=2, targets='all-linear'), arch)
    neck = grown(
        LLMBlockNeck(C, neck.block, lora=dict(r=2, alpha=1), residual='both')
    ).eval()
    expected, fused = neck(tokens()), lm4ve.fuse(neck)
    assert_equal_but_for_rounding(fused(tokens()), expected, neck)
    assert type(fused.block).__name__ == 'FusedBlock'
    assert not any('lora' in n for n, _ in fused.named_modules())
    assert torch.equal(neck(tokens()), expected)


REFUSED = [dict(r=3), dict(r=2, alpha=1), dict(r=2, targets=['q_proj'])]


@pytest.mark.parametrize('other', REFUSED)
def test_a_checkpoint_of_other_adapters_is_refused(other):
    state = make(lora=dict(r=2)).state_dict()
    for neck in (make(lora=other), make()):
        with pytest.raises(CheckpointError, match='block.lora'):
            neck.load_state_dict(dict(state), strict=False)
    mapped = make(mapped=dict(r=2))
    with pytest.raises(CheckpointError, match='neck.lora'):
        make().load_state_dict(mapped.state_dict(), strict=False)


def test_bad_fields_are_one_error():
    with pytest.raises(UserError, match="targets='w_proj' matches no.*0.q_proj"):
        make(lora=dict(targets=['q_proj', 'w_proj']))
    with pytest.raises(UserError, match='targets is empty'):
        make(mapped=dict(targets=[]))
    with pytest.raises(UserError, match="block.trainable='none' with block.lora"):
        LLMBlockNeck(C, dict(type='LLMBlock', arch=ARCH, lora=dict(r=2)))


PROCESS = """
import sys, torch
from torch import distributed
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.nn.parallel import DistributedDataParallel as DDP
from tests.helpers.necks.lora import make, train

port, rank = sys.argv[1:]
address = f'tcp://127.0.0.1:{port}'
distributed.init_process_group('gloo', address, rank=int(rank), world_size=2)
build = lambda: make(lora=dict(r=2, targets='all-linear'), mapped=dict(r=2))
sharded = dict(use_orig_params=True, device_id=torch.device('cpu'))
losses = [train(m) for m in (build(), DDP(build()), FSDP(build(), **sharded))]
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
