"""Checkpoints, tokenizers and tables that somebody else wrote end in one message at worst."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from lm4ve.errors import CheckpointError, UserError
from lm4ve.runner.checkpoint_files import load_partly, load_strictly
from lm4ve.tasks.vqa import CaptionFiles, VisionLanguagePreprocessor, VQAFiles
from lm4ve.tasks.vqa.converters import convert_meter, to_meter
from tests.tasks.vqa import files, released
from tests.tasks.vqa.tiny import ANSWERS, build, write_tokenizer

CHANGES = {
    'no dimension': lambda v: torch.tensor(1).to(v.dtype),
    'nothing in it': lambda v: v.flatten()[:0],
    'one dimension': lambda v: v.flatten()[:3],
    'more dimensions': lambda v: v[..., None, None],
    'another kind': lambda v: v.float() if not v.is_floating_point() else v > 0,
}
KEYS = (
    'image_encoder.model.embeddings.position_embedding.weight',
    'image_encoder.model.embeddings.patch_embedding.weight',
    'text_encoder.model.embeddings.word_embeddings.weight',
    'text_transform.weight',
    'head.vocabulary_fingerprint',
    'head.layers.3.bias',
)


@pytest.fixture(scope='module')
def model():
    return build()


@pytest.mark.parametrize('key', KEYS)
@pytest.mark.parametrize('change', CHANGES)
def test_a_damaged_tensor_is_named_by_any_way_of_loading(key, change, model):
    state = dict(model.state_dict())
    before = state[key].clone()
    state[key] = CHANGES[change](state[key])
    if state[key].shape == before.shape and state[key].dtype == before.dtype:
        pytest.skip('nothing has changed')
    with pytest.raises(UserError):
        load_strictly(model, state, "'a.pth'")
    try:
        load_partly(model, state, "'a.pth'")
    except UserError:
        pass
    assert torch.equal(model.state_dict()[key], before)


@pytest.mark.parametrize('change', list(CHANGES)[:4])
def test_a_released_checkpoint_with_damaged_tensors_is_one_message(change):
    state = released.random_state('vqa')
    for key in [k for k in state if 'in_proj_weight' in k or 'vqa_classifier.3' in k or 'itm' in k]:
        damaged = state | {key: CHANGES[change](state[key])}
        with pytest.raises(UserError, match='.*Fix'):
            convert_meter(damaged, vocabulary=ANSWERS)


def test_a_model_of_texts_is_no_meter():
    texts = {'embeddings.word_embeddings.weight': torch.ones(4, 2)}
    for convert in (convert_meter, to_meter):
        with pytest.raises(CheckpointError):
            convert(texts)


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def edit(folder: Path, name: str, **fields) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def of_code(folder: Path, target: Path) -> None:
    (folder / 'code.py').write_text(f"open({str(target)!r}, 'w')\nclass T: pass\n")
    edit(folder, 'tokenizer_config.json', auto_map=dict(AutoTokenizer=['code.T', 'code.T']))


def of_pickles(folder: Path, target: Path) -> None:
    (folder / 'tokenizer.json').unlink()
    edit(folder, 'tokenizer_config.json', tokenizer_class='TransfoXLTokenizer')
    for name in ('vocab.pkl', 'vocab.bin', 'tokenizer.json'):
        (folder / name).write_bytes(pickle.dumps(Payload(target)))


def ids(folder: Path, target: Path) -> None:
    path = folder / 'tokenizer.json'
    content = json.loads(path.read_text())
    content['model']['vocab'].pop('<unk>')  # Rust panics once it is looked up
    path.write_text(json.dumps(content))


HOSTILE = {
    'code': of_code,
    'pickles': of_pickles,
    'panic': ids,
    'deep': lambda f, _: (f / 'tokenizer.json').write_text('[' * 100_000),
    'deep settings': lambda f, _: (f / 'tokenizer_config.json').write_text('{"a":' * 990),
    'a list': lambda f, _: (f / 'tokenizer_config.json').write_text('[]'),
    'null': lambda f, _: (f / 'tokenizer.json').write_text('null'),
    'a length': lambda f, _: edit(f, 'tokenizer_config.json', model_max_length='a'),
    'a padding': lambda f, _: edit(f, 'tokenizer_config.json', pad_token=5),
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_a_hostile_tokenizer_runs_nothing_and_ends_in_one_message(kind, tmp_path):
    folder = Path(write_tokenizer(tmp_path / 'tokenizer'))
    HOSTILE[kind](folder, tmp_path / 'ran')
    if kind == 'code':
        VisionLanguagePreprocessor(str(folder), max_length=12)
    else:
        with pytest.raises(CheckpointError, match='has no tokenizer that loads.*Fix'):
            VisionLanguagePreprocessor(str(folder), max_length=12)
    assert not (tmp_path / 'ran').exists()


def test_a_vocabulary_file_elsewhere_is_not_read(tmp_path):
    write_tokenizer(tmp_path / 'other', words=['secret'])
    folder = Path(write_tokenizer(tmp_path / 'tokenizer'))
    other = str(tmp_path / 'other/tokenizer.json')
    edit(folder, 'tokenizer_config.json', tokenizer_file=other, vocab_file=other)
    tokenizer = VisionLanguagePreprocessor(str(folder), max_length=12).tokenizer
    assert 'secret' not in tokenizer.get_vocab() and 'cat' in tokenizer.get_vocab()


def test_numbers_of_tokens_beyond_the_encoders_are_refused(tmp_path):
    folder = Path(write_tokenizer(tmp_path))
    path = folder / 'tokenizer.json'
    content = json.loads(path.read_text())
    content['model']['vocab']['cat'] = 10**6
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='has 1000001 tokens, but model.text_encoder knows'):
        build(str(folder))


@pytest.mark.parametrize('kind', [VQAFiles, CaptionFiles])
@pytest.mark.parametrize(
    'row, words',
    [
        ('{"image": "a.png", "question": "\\ud800?", "caption": "\\ud800"}\n', 'half of a char'),
        ('{"image": "http://localhost:9/a.png", "question": "x", "caption": "x"}\n', 'outside of'),
        ('{"image": "b:http://a.png", "question": "x", "caption": "x"}\n', 'outside of'),
    ],
)
def test_a_hostile_row_is_named(kind, row, words, tmp_path):
    files.write_image(tmp_path / 'a.png')
    (tmp_path / 'q.jsonl').write_text(row)
    with pytest.raises(UserError, match=f'q.jsonl.*{words}.*Fix'):
        kind('q.jsonl', str(tmp_path))


@pytest.mark.parametrize('depth', [300, 900, 960, 980, 990, 2000])
def test_deep_values_are_refused_at_any_depth(depth, tmp_path):
    files.write_image(tmp_path / 'a.png')
    deep = '[' * depth + ']' * depth
    for row in (f'"a.png", "question": {deep}', f'{deep}, "question": "x"'):
        (tmp_path / 'q.jsonl').write_text(f'{{"image": {row}}}\n')
        with pytest.raises(UserError):
            VQAFiles('q.jsonl', str(tmp_path))


def test_json_lines_end_at_line_feeds_only(tmp_path):
    files.write_image(tmp_path / 'a.png')
    row = dict(image='a.png', question='One\u2028two\x85three?', answer='x')
    (tmp_path / 'q.jsonl').write_text(json.dumps(row, ensure_ascii=False) + '\n', 'utf-8')
    (entry,) = VQAFiles('q.jsonl', str(tmp_path), serialize_data=False)
    assert entry['text'] == [row['question']]


@pytest.mark.parametrize(
    'text, words',
    [
        ('image,question,answer\na.png,What?,a d', 'may be cut'),
        ('image,question,question\na.png,What?,Who?\n', 'columns of the same name: question'),
    ],
)
def test_a_table_that_is_cut_or_says_a_thing_twice_is_refused(text, words, tmp_path):
    files.write_image(tmp_path / 'a.png')
    (tmp_path / 'q.csv').write_text(text)
    with pytest.raises(UserError, match=f'q.csv.*{words}.*Fix'):
        VQAFiles('q.csv', str(tmp_path))
