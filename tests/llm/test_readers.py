"""The same weights give the same block, in whatever files they come."""

import re
from pathlib import Path

import pytest
import torch

from lm4ve.blocks import LLMBlock, frozen_tensors
from tests.blocks.test_families import right_padding, tokens
from tests.helpers.families import LAYOUTS, random_model, write_huggingface, write_meta

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def assert_equal_blocks(block: LLMBlock, expected: LLMBlock) -> None:
    assert block.source['fingerprint'] == expected.source['fingerprint']
    mine, theirs = frozen_tensors(block), frozen_tensors(expected)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
    x = tokens()
    assert torch.equal(block(x, right_padding()), expected(x, right_padding()))


@pytest.mark.filterwarnings('ignore:.*before PyTorch 1.6')
@pytest.mark.parametrize('variant', ['llama-gqa', 'gpt2', 'bert'])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_every_layout_gives_the_same_block(checkpoints, tmp_path, variant, layout, dtype):
    write_huggingface(tmp_path, variant, layout, dtype=dtype)
    assert_equal_blocks(
        LLMBlock(str(tmp_path), layers=(1, 0)), LLMBlock(checkpoints(variant), layers=(1, 0))
    )


def test_the_old_format_is_read_as_a_whole_and_says_so(checkpoints):
    path = checkpoints('llama', layout='legacy-bin')
    with pytest.warns(UserWarning, match='before PyTorch 1.6.*whole file'):
        LLMBlock(path)


@pytest.mark.parametrize('shards', [1, 2])
@pytest.mark.parametrize('family', ['llama', 'llama-gqa'])
@pytest.mark.parametrize('causal, rotary', [(False, False), (True, True)])
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_metas_layout_gives_the_same_block(
    checkpoints, tmp_path, shards, family, causal, rotary, dtype
):
    write_meta(tmp_path, shards, family, dtype=dtype)
    options = dict(layers=(0, 1), causal=causal, rotary=rotary)
    assert_equal_blocks(
        LLMBlock(str(tmp_path), **options), LLMBlock(checkpoints(family), **options)
    )


SCALED = dict(
    rope_type='llama3',
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)


@pytest.mark.parametrize(
    'params, rope, base',
    [({}, dict(rope_type='default'), 500.0), (dict(use_scaled_rope=True), SCALED, 500000.0)],
)
def test_metas_rotary_settings_are_used(checkpoints, tmp_path, params, rope, base):
    write_meta(tmp_path, rope_theta=base, **params)
    write_huggingface(tmp_path / 'hf', 'llama', rope_parameters=dict(rope, rope_theta=base))
    folders = (str(tmp_path), str(tmp_path / 'hf'), checkpoints('llama'))
    meta, huggingface, usual = (LLMBlock(f, rotary=True)(tokens()) for f in folders)
    assert torch.equal(meta, huggingface) and not torch.equal(meta, usual)


def test_fingerprints_tell_layers_and_models_apart(checkpoints):
    prints = [
        LLMBlock(checkpoints('llama', seed=s), layers=layers).source['fingerprint']
        for s in (0, 1)
        for layers in ((0,), (1,), (0, 1), (1, 0))
    ]
    assert len(set(prints)) == len(prints)


PREFIXES = {
    'llama': ['model.', 'language_model.model.', 'base_model.model.model.'],
    'gpt2': ['transformer.'],
    'opt': ['model.'],
    'bert': ['bert.'],
    'roberta': ['roberta.'],
    'falcon-7b': ['transformer.'],
    'gpt_neox': ['gpt_neox.'],
}


@pytest.mark.parametrize('variant, prefix', [(v, p) for v, ps in PREFIXES.items() for p in ps])
def test_any_prefix_is_found(checkpoints, tmp_path, variant, prefix):
    write_huggingface(tmp_path, variant, rename=lambda name: prefix + name)
    assert_equal_blocks(LLMBlock(str(tmp_path)), LLMBlock(checkpoints(variant)))


@pytest.mark.parametrize('layout', ['safetensors', 'sharded-bin'])
def test_old_names_of_berts_norms(checkpoints, tmp_path, layout):

    def rename(name: str) -> str:
        name = name.replace('LayerNorm.weight', 'LayerNorm.gamma')
        return 'bert.' + name.replace('LayerNorm.bias', 'LayerNorm.beta')

    write_huggingface(tmp_path, 'bert', layout, rename=rename)
    assert_equal_blocks(LLMBlock(str(tmp_path)), LLMBlock(checkpoints('bert')))


@pytest.mark.parametrize(
    'variant, extra',
    [
        ('llama', 'layers.{}.self_attn.rotary_emb.inv_freq'),
        ('gpt2', 'h.{}.attn.bias'),
        ('gpt2', 'h.{}.attn.masked_bias'),
        ('gpt_neox', 'layers.{}.attention.bias'),
        ('bert', 'embeddings.position_ids'),
    ],
)
def test_other_tensors_beside_do_not_matter(checkpoints, tmp_path, variant, extra):
    beside = {extra.format(i): torch.zeros(3) for i in range(2)}
    write_huggingface(tmp_path, variant, extra=beside)
    assert_equal_blocks(LLMBlock(str(tmp_path)), LLMBlock(checkpoints(variant)))


@pytest.mark.parametrize(
    'layout, file',
    [
        ('safetensors', 'model.safetensors'),
        ('bin', 'pytorch_model.bin'),
        ('sharded-safetensors', 'model.safetensors.index.json'),
        # Layer 1 is all there is in this one, and all that is needed.
        ('sharded-bin', 'pytorch_model-00003-of-00003.bin'),
    ],
)
def test_a_single_file_can_be_named(checkpoints, tmp_path, layout, file):
    write_huggingface(tmp_path, 'llama', layout)
    assert_equal_blocks(LLMBlock(str(tmp_path / file)), LLMBlock(checkpoints('llama')))


def test_a_meta_file_can_be_named(checkpoints, tmp_path):
    write_meta(tmp_path, shards=2)
    assert_equal_blocks(
        LLMBlock(str(tmp_path / 'consolidated.00.pth')), LLMBlock(checkpoints('llama'))
    )


def test_safetensors_are_preferred_to_pickles(checkpoints, tmp_path):
    write_huggingface(tmp_path, 'llama')
    (tmp_path / 'pytorch_model.bin').write_bytes(b'not even a pickle')
    assert_equal_blocks(LLMBlock(str(tmp_path)), LLMBlock(checkpoints('llama')))


def test_shards_of_other_layers_need_not_be_there(checkpoints, tmp_path):
    for layout in ('sharded-safetensors', 'sharded-bin'):
        folder = write_huggingface(tmp_path / layout, 'llama', layout)
        for shard in folder.glob('*-of-00003.*'):
            if '00003-of' not in shard.name:
                shard.unlink()
        assert_equal_blocks(LLMBlock(str(folder)), LLMBlock(checkpoints('llama')))


def test_a_home_folder_is_expanded(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    write_huggingface(tmp_path / 'llm', 'llama')
    assert_equal_blocks(LLMBlock('~/llm'), LLMBlock(checkpoints('llama')))


def test_a_block_does_not_depend_on_its_files_any_more(checkpoints, tmp_path):
    # A memory map would: a changed file would change the weights.
    expected = LLMBlock(checkpoints('llama'))
    for layout in ('safetensors', 'bin'):
        folder = write_huggingface(tmp_path / layout, 'llama', layout)
        block = LLMBlock(str(folder))
        for file in folder.iterdir():
            size = file.stat().st_size
            with open(file, 'r+b') as f:
                f.write(b'\0' * size)
        assert_equal_blocks(block, expected)


# ------------------------------------------------------------------- the hub
@pytest.fixture
def hub(monkeypatch):
    """``hub(folder)`` serves a folder as a repository and records requests."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    def serve(folder: Path) -> list:
        asked = []

        def download(repo_id, filename, revision=None, **kwargs):
            asked.append((repo_id, filename, revision))
            if not (folder / filename).is_file():
                raise EntryNotFoundError(f'404: {filename}')
            return str(folder / filename)

        monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
        return asked

    return serve


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
def test_a_hub_id_fetches_only_the_shards_of_the_layer(checkpoints, tmp_path, hub, layout):
    write_huggingface(tmp_path, 'llama', layout)
    asked = hub(tmp_path)
    block = LLMBlock('org/tiny-llama', layers=(0,))
    fetched = {f for _, f, _ in asked if (tmp_path / f).is_file()}
    shards = {f for f in fetched if re.search(r'-of-\d+\.', f)}
    assert [re.search(r'(\d+)-of', s).group(1) for s in shards] == ['00002']
    assert all(f.endswith('.json') for f in fetched - shards)
    assert block.source['source'] == 'org/tiny-llama'
    assert_equal_blocks(block, LLMBlock(checkpoints('llama'), layers=(0,)))


def test_a_revision_is_passed_on(tmp_path, hub):
    write_huggingface(tmp_path, 'llama')
    asked = hub(tmp_path)
    LLMBlock('org/tiny-llama@v1.0')
    assert {(r, v) for r, _, v in asked} == {('org/tiny-llama', 'v1.0')}


@pytest.mark.parametrize('shards', [1, 2])
def test_metas_files_on_the_hub(checkpoints, tmp_path, hub, shards):
    write_meta(tmp_path, shards)
    hub(tmp_path)
    assert_equal_blocks(LLMBlock('org/llama'), LLMBlock(checkpoints('llama')))


def test_a_random_block_from_the_hub_fetches_the_config_only(tmp_path, hub):
    write_huggingface(tmp_path, 'llama')
    asked = hub(tmp_path)
    LLMBlock('org/tiny-llama', pretrained=False)
    assert [f for _, f, _ in asked] == ['config.json']


# -------------------------------------------------------------- a real model
MINILM = 'package:all-MiniLM-L6-v2'


def test_every_layer_of_a_real_model():
    from transformers import AutoModel

    from lm4ve.llm.sources import locate_packaged

    # A requirement of ours: a missing or changed package fails here.
    folder = locate_packaged('all-MiniLM-L6-v2').parent
    model = AutoModel.from_pretrained(folder).eval()
    ids = torch.randint(1000, 20000, (3, 12), generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(3, 12, dtype=torch.bool)
    padding[1, 5:] = padding[2, 9:] = True
    for mask in (None, padding):
        real = torch.ones_like(padding) if mask is None else ~mask
        with torch.no_grad():
            states = model(ids, attention_mask=real.long(), output_hidden_states=True).hidden_states
        for i in range(6):
            block = LLMBlock(MINILM, layers=(i,))
            assert block.source['source'] == MINILM
            torch.testing.assert_close(
                block(states[i], mask)[real], states[i + 1][real], atol=1e-5, rtol=1e-5
            )
        whole = LLMBlock(MINILM, layers=range(6))
        torch.testing.assert_close(
            whole(states[0], mask)[real], states[6][real], atol=1e-5, rtol=1e-4
        )


def test_the_weights_in_a_block_are_those_of_the_model(checkpoints):
    layer = random_model('llama-gqa').layers[1]
    held = frozen_tensors(LLMBlock(checkpoints('llama-gqa')))
    for mine, theirs in (
        ('q_proj', layer.self_attn.q_proj),
        ('k_proj', layer.self_attn.k_proj),
        ('o_proj', layer.self_attn.o_proj),
        ('attention_norm', layer.input_layernorm),
        ('mlp.down_proj', layer.mlp.down_proj),
    ):
        assert torch.equal(held[f'layers.0.{mine}.weight'], theirs.weight)
