"""The same weights give the same block, in whatever files they come."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.errors import CheckpointError
from tests.helpers.blocks.inputs import right_padding, tokens
from tests.helpers.families import LAYOUTS, write_huggingface, write_meta
from tests.helpers.hub import add_repository, use_cache

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*before PyTorch 1.6'),
    # The same values in another file are the same block, to the bit.
    pytest.mark.bitwise,
]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def assert_equal_blocks(block: LLMBlock, expected: LLMBlock) -> None:
    assert block.source['fingerprint'] == expected.source['fingerprint']
    torch.testing.assert_close(
        frozen_tensors(block), frozen_tensors(expected), rtol=0, atol=0
    )
    x = tokens()
    assert torch.equal(block(x, right_padding()), expected(x, right_padding()))


def assert_equal_sources(*sources, **options) -> None:
    assert_equal_blocks(*(LLMBlock(str(source), **options) for source in sources))


@pytest.mark.parametrize('variant', ['llama-gqa', 'gpt2', 'bert'])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_every_layout_gives_the_same_block(
    checkpoints, tmp_path, variant, layout, dtype
):
    write_huggingface(tmp_path, variant, layout, dtype=dtype)
    assert_equal_sources(tmp_path, checkpoints(variant), layers=(1, 0))


@pytest.mark.parametrize('shards', [1, 2])
@pytest.mark.parametrize('family', ['llama', 'llama-gqa'])
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_metas_layout_gives_the_same_block(
    checkpoints, tmp_path, shards, family, dtype
):
    write_meta(tmp_path, shards, family, dtype=dtype)
    options = dict(layers=(0, 1), causal=True, rotary=True)
    assert_equal_sources(tmp_path, checkpoints(family), **options)


SCALED = dict(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)


ROTARY = [
    ({}, dict(rope_type='default'), 500.0),
    (
        dict(use_scaled_rope=True),
        dict(SCALED, original_max_position_embeddings=8192),
        5e5,
    ),
]


@pytest.mark.parametrize('params, rope, base', ROTARY)
def test_metas_rotary_settings_are_used(checkpoints, tmp_path, params, rope, base):
    write_meta(tmp_path, rope_theta=base, **params)
    write_huggingface(
        tmp_path / 'hf', 'llama', rope_parameters=dict(rope, rope_theta=base)
    )
    folders = (str(tmp_path), str(tmp_path / 'hf'), checkpoints('llama'))
    meta, huggingface, usual = (LLMBlock(f, rotary=True)(tokens()) for f in folders)
    assert torch.equal(meta, huggingface) and not torch.equal(meta, usual)


PREFIXES = dict(
    llama='model. language_model.model. base_model.model.model.',
    gpt2='transformer.',
    opt='model.',
    bert='bert.',
    gpt_neox='gpt_neox.',
)
EXTRAS = [
    ('llama', 'layers.{}.self_attn.rotary_emb.inv_freq'),
    ('gpt2', 'h.{}.attn.bias'),
    ('gpt2', 'h.{}.attn.masked_bias'),
    ('bert', 'embeddings.position_ids'),
    ('codegen', 'h.{}.attn.causal_mask'),
    ('gpt_neox', 'layers.{}.attention.masked_bias'),
]


def old_bert(name: str) -> str:
    name = name.replace('LayerNorm.weight', 'LayerNorm.gamma')
    return 'bert.' + name.replace('LayerNorm.bias', 'LayerNorm.beta')


NAMES = [
    *(
        (v, dict(rename=lambda n, p=p: p + n))
        for v, ps in PREFIXES.items()
        for p in ps.split()
    ),
    *(
        (v, dict(extra={e.format(i): torch.zeros(3) for i in (0, 1)}))
        for v, e in EXTRAS
    ),
    *(
        ('bert', dict(rename=old_bert, layout=layout))
        for layout in ('safetensors', 'sharded-bin')
    ),
]


@pytest.mark.parametrize('variant, options', NAMES)
def test_names_in_the_files_do_not_matter(checkpoints, tmp_path, variant, options):
    write_huggingface(tmp_path, variant, **options)
    assert_equal_sources(tmp_path, checkpoints(variant))


def without_other_shards(folder: Path, layout: str) -> Path:
    write_huggingface(folder, 'llama', layout)
    for shard in folder.glob('*-0000[12]-of-00003.*'):
        shard.unlink()
    return folder


def beside_a_pickle(folder: Path) -> Path:
    (write_huggingface(folder, 'llama') / 'pytorch_model.bin').write_bytes(
        b'not a pickle'
    )
    return folder


def one_of(layout: str, file: str) -> Callable[[Path], Path]:
    return lambda folder: write_huggingface(folder, 'llama', layout) / file


SOURCES = {
    'index': one_of('sharded-safetensors', 'model.safetensors.index.json'),
    'safetensors': one_of('safetensors', 'model.safetensors'),
    'bin': one_of('bin', 'pytorch_model.bin'),
    'shard': one_of('sharded-bin', 'pytorch_model-00003-of-00003.bin'),
    'a file of Meta': lambda f: write_meta(f, shards=2) / 'consolidated.00.pth',
    'safetensors before pickles': beside_a_pickle,
    'safe shards': lambda f: without_other_shards(f, 'sharded-safetensors'),
    'pickled shards': lambda f: without_other_shards(f, 'sharded-bin'),
    'home': lambda f: write_huggingface(f / 'llm', 'llama') and '~/llm',
}


@pytest.mark.parametrize('write', SOURCES.values(), ids=SOURCES)
def test_files_are_found_by_what_is_named(checkpoints, tmp_path, monkeypatch, write):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert_equal_sources(write(tmp_path), checkpoints('llama'))


@pytest.mark.parametrize('layout', ['safetensors', 'bin', 'meta'])
def test_a_block_does_not_depend_on_its_files_any_more(checkpoints, tmp_path, layout):
    # A memory map would: a changed file would change the weights.
    write_meta(tmp_path) if layout == 'meta' else write_huggingface(
        tmp_path, 'llama', layout
    )
    block = LLMBlock(str(tmp_path))
    for file in tmp_path.iterdir():
        size = file.stat().st_size
        with open(file, 'r+b') as f:
            f.write(b'\0' * size)
    assert_equal_blocks(block, LLMBlock(checkpoints('llama')))


# ------------------------------------------------------------------- the hub
@pytest.fixture
def requests(monkeypatch, tmp_path) -> list:
    """Serves ``tmp_path`` as a repository and records requests."""
    asked = []

    def download(repo_id, filename, revision=None, **kwargs):
        asked.append((repo_id, filename, revision))
        if not (tmp_path / filename).is_file():
            raise errors.EntryNotFoundError(f'404: {filename}')
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    return asked


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
def test_a_hub_id_fetches_only_the_shards_of_the_layer(
    checkpoints, tmp_path, requests, layout
):
    write_huggingface(tmp_path, 'llama', layout)
    block = LLMBlock('org/tiny-llama', layers=(0,))
    fetched = {f for _, f, _ in requests if (tmp_path / f).is_file()}
    shards = {f for f in fetched if re.search(r'-of-\d+\.', f)}
    assert [re.search(r'(\d+)-of', s).group(1) for s in shards] == ['00002']
    assert all(f.endswith('.json') for f in fetched - shards)
    assert block.source['source'] == 'org/tiny-llama'
    assert_equal_blocks(block, LLMBlock(checkpoints('llama'), layers=(0,)))


@pytest.mark.parametrize('shards', [1, 2])
def test_metas_files_on_the_hub(checkpoints, tmp_path, requests, shards):
    write_meta(tmp_path, shards)
    assert_equal_sources('org/llama@v1.0', checkpoints('llama'))
    assert {(name, revision) for name, _, revision in requests} == {
        ('org/llama', 'v1.0')
    }


def test_a_random_block_from_the_hub_fetches_the_config_only(tmp_path, requests):
    write_huggingface(tmp_path, 'llama')
    LLMBlock('org/tiny-llama', pretrained=False)
    assert [f for _, f, _ in requests] == ['config.json']


@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_hub_id_is_read_from_the_cache_where_there_is_no_network(
    checkpoints, tmp_path, monkeypatch, layout
):
    use_cache(monkeypatch, tmp_path)
    add_repository(
        tmp_path, 'org/tiny', lambda f: write_huggingface(f, 'llama', layout), 'v1'
    )
    assert_equal_sources('org/tiny@v1', checkpoints('llama'))


def test_a_shard_that_the_cache_lacks_is_named(tmp_path, monkeypatch):
    use_cache(monkeypatch, tmp_path)
    write = partial(write_huggingface, family='llama', layout='sharded-safetensors')
    files = add_repository(tmp_path, 'org/tiny', write)
    (files / 'model-00003-of-00003.safetensors').unlink()
    with pytest.raises(
        CheckpointError, match='org/tiny.*no such file.*download that shard'
    ):
        LLMBlock('org/tiny')


#: What the hub's library raises -> our words for it.
REFUSED = [
    (errors.RepositoryNotFoundError, 'the hub has none of this name, or it is private'),
    (errors.GatedRepoError, 'its owner has to grant access, and you have to log in'),
    (errors.RevisionNotFoundError, 'it has no such revision'),
]


@pytest.mark.parametrize('error, words', REFUSED)
def test_an_answer_of_the_hub_is_said_in_a_line(monkeypatch, error, words):
    def download(*args, **options):
        text = '404 Client Error. (Request ID: 7)\n\nNot found.\nPlease log in.'
        raise error(text, response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    with pytest.raises(CheckpointError, match=words) as e:
        LLMBlock('org/tiny')
    assert str(e.value).startswith("block.checkpoint='org/tiny'") and '\n' not in str(
        e.value
    )


def test_every_layer_of_a_real_model():
    from transformers import AutoModel

    from lm4ve.llm.sources import locate_packaged

    # A requirement of ours: a missing or changed package fails here.
    folder = locate_packaged('all-MiniLM-L6-v2').parent
    model = AutoModel.from_pretrained(folder).eval()
    ids = torch.randint(
        1000, 20000, (3, 12), generator=torch.Generator().manual_seed(0)
    )
    mask = torch.zeros(3, 12, dtype=torch.bool)
    mask[1, 5:] = mask[2, 9:] = True
    with torch.no_grad():
        states = model(
            ids, attention_mask=(~mask).long(), output_hidden_states=True
        ).hidden_states
    for i in range(6):
        out = LLMBlock('package:all-MiniLM-L6-v2', layers=(i,))(states[i], mask)
        torch.testing.assert_close(
            out[~mask], states[i + 1][~mask], atol=1e-5, rtol=1e-5
        )
