"""The same weights give the same block, in whatever files they come."""

from functools import partial
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from transformers import AutoModel

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import locate_packaged
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


#: Entries of Meta's params.json, and the same as Hugging Face writes it.
ROTARY = [
    (
        dict(rope_theta=500.0),
        dict(rope_type='default', rope_theta=500.0),
    ),
    (
        dict(rope_theta=5e5, use_scaled_rope=True),
        dict(
            rope_type='llama3',
            rope_theta=5e5,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    ),
]


@pytest.mark.parametrize('params, rope', ROTARY)
def test_metas_rotary_settings_are_used(checkpoints, tmp_path, params, rope):
    def output(folder) -> torch.Tensor:
        return LLMBlock(str(folder), rotary=True)(tokens())

    meta = output(write_meta(tmp_path / 'meta', **params))
    huggingface = write_huggingface(tmp_path / 'hf', 'llama', rope_parameters=rope)
    assert torch.equal(meta, output(huggingface))
    assert not torch.equal(meta, output(checkpoints('llama')))


PREFIXES = [
    ('llama', 'model.'),
    ('llama', 'language_model.model.'),
    ('llama', 'base_model.model.model.'),
    ('gpt2', 'transformer.'),
    ('opt', 'model.'),
    ('bert', 'bert.'),
    ('gpt_neox', 'gpt_neox.'),
]


@pytest.mark.parametrize('variant, prefix', PREFIXES)
def test_prefixes_of_names_do_not_matter(checkpoints, tmp_path, variant, prefix):
    write_huggingface(tmp_path, variant, rename=lambda name: prefix + name)
    assert_equal_sources(tmp_path, checkpoints(variant))


#: Tensors that old files have beside the weights of each layer.
EXTRAS = [
    ('llama', 'layers.{}.self_attn.rotary_emb.inv_freq'),
    ('gpt2', 'h.{}.attn.bias'),
    ('gpt2', 'h.{}.attn.masked_bias'),
    ('bert', 'embeddings.position_ids'),
    ('codegen', 'h.{}.attn.causal_mask'),
    ('gpt_neox', 'layers.{}.attention.masked_bias'),
]


@pytest.mark.parametrize('variant, name', EXTRAS)
def test_buffers_of_old_files_are_ignored(checkpoints, tmp_path, variant, name):
    extra = {name.format(layer): torch.zeros(3) for layer in (0, 1)}
    write_huggingface(tmp_path, variant, extra=extra)
    assert_equal_sources(tmp_path, checkpoints(variant))


def old_name_of_bert(name: str) -> str:
    name = name.replace('LayerNorm.weight', 'LayerNorm.gamma')
    name = name.replace('LayerNorm.bias', 'LayerNorm.beta')
    return f'bert.{name}'


@pytest.mark.parametrize('layout', ['safetensors', 'sharded-bin'])
def test_old_names_of_norms_are_read(checkpoints, tmp_path, layout):
    write_huggingface(tmp_path, 'bert', layout, rename=old_name_of_bert)
    assert_equal_sources(tmp_path, checkpoints('bert'))


#: Layout -> a file of it.
FILES = {
    'sharded-safetensors': 'model.safetensors.index.json',
    'safetensors': 'model.safetensors',
    'bin': 'pytorch_model.bin',
    'sharded-bin': 'pytorch_model-00003-of-00003.bin',
}


@pytest.mark.parametrize('layout', FILES)
def test_a_file_stands_for_its_folder(checkpoints, tmp_path, layout):
    write_huggingface(tmp_path, 'llama', layout)
    assert_equal_sources(tmp_path / FILES[layout], checkpoints('llama'))


def test_a_file_of_meta_stands_for_its_folder(checkpoints, tmp_path):
    write_meta(tmp_path, shards=2)
    assert_equal_sources(tmp_path / 'consolidated.00.pth', checkpoints('llama'))


@pytest.mark.parametrize('layout', ['sharded-safetensors', 'sharded-bin'])
def test_other_shards_need_not_be_there(checkpoints, tmp_path, layout):
    write_huggingface(tmp_path, 'llama', layout)
    for shard in tmp_path.glob('*-0000[12]-of-00003.*'):
        shard.unlink()
    assert_equal_sources(tmp_path, checkpoints('llama'))


def test_safetensors_come_before_pickles(checkpoints, tmp_path):
    write_huggingface(tmp_path, 'llama')
    (tmp_path / 'pytorch_model.bin').write_bytes(b'not a pickle')
    assert_equal_sources(tmp_path, checkpoints('llama'))


def test_a_path_may_begin_with_the_home_folder(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    write_huggingface(tmp_path / 'llm', 'llama')
    assert_equal_sources('~/llm', checkpoints('llama'))


@pytest.mark.parametrize('layout', ['safetensors', 'bin', 'meta'])
def test_a_block_does_not_depend_on_its_files_any_more(checkpoints, tmp_path, layout):
    """A memory map would: a changed file would change the weights."""
    if layout == 'meta':
        write_meta(tmp_path)
    else:
        write_huggingface(tmp_path, 'llama', layout)
    block = LLMBlock(str(tmp_path))
    for path in tmp_path.iterdir():
        with open(path, 'r+b') as file:
            file.write(bytes(path.stat().st_size))
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
    requested = [name for _, name, _ in requests]
    fetched = {name for name in requested if (tmp_path / name).is_file()}
    weights = [name for name in fetched if not name.endswith('.json')]
    assert len(weights) == 1
    assert '-00002-of-00003.' in weights[0]
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
    write = partial(write_huggingface, family='llama', layout=layout)
    add_repository(tmp_path, 'org/tiny', write, 'v1')
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
    with pytest.raises(CheckpointError, match=words) as raised:
        LLMBlock('org/tiny')
    message = str(raised.value)
    assert message.startswith("block.checkpoint='org/tiny'")
    assert '\n' not in message


def test_every_layer_of_a_real_model():
    # A requirement of ours: a missing or changed package fails here.
    folder = locate_packaged('all-MiniLM-L6-v2').parent
    model = AutoModel.from_pretrained(folder).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20000, (3, 12), generator=generator)
    padding = torch.zeros(3, 12, dtype=torch.bool)
    padding[1, 5:] = True
    padding[2, 9:] = True
    with torch.no_grad():
        output = model(ids, attention_mask=(~padding).long(), output_hidden_states=True)
    states = output.hidden_states
    for i in range(6):
        block = LLMBlock('package:all-MiniLM-L6-v2', layers=(i,))
        found = block(states[i], padding)[~padding]
        expected = states[i + 1][~padding]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
