"""Damaged checkpoints and tokenizers change nothing, run nothing and raise."""

import json
import pickle
from pathlib import Path

import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.vqa import CaptionFiles, VisionLanguagePreprocessor, VQAFiles
from tests.helpers.hostile import Payload, edit
from tests.tasks.vqa.files import write_image
from tests.tasks.vqa.tiny import build, write_tokenizer


@pytest.mark.parametrize('name', ['../b.png', '/etc/b.png', 'http://localhost:9/b.png', ' '])
def test_lists_name_no_image_outside_their_folder(name, tmp_path):
    row = json.dumps(dict(image=name, question='What?', caption='a'))
    (tmp_path / 'q.jsonl').write_text(row + '\n')
    write_image(tmp_path.parent / 'b.png')
    for kind in (VQAFiles, CaptionFiles):
        with pytest.raises(UserError, match='leads out of the folder'):
            kind('q.jsonl', str(tmp_path), test_mode=True)


def of_code(folder: Path, target: Path) -> None:
    (folder / 'code.py').write_text(f"open({str(target)!r}, 'w')\nclass T: pass\n")
    fields = dict(auto_map=dict(AutoTokenizer=['code.T', 'code.T']))
    edit(folder / 'tokenizer_config.json', lambda c: c.update(fields))


def of_pickles(folder: Path, target: Path) -> None:
    (folder / 'tokenizer.json').unlink()
    fields = dict(tokenizer_class='TransfoXLTokenizer')
    edit(folder / 'tokenizer_config.json', lambda c: c.update(fields))
    for name in ('vocab.pkl', 'vocab.bin', 'tokenizer.json'):
        (folder / name).write_bytes(pickle.dumps(Payload(target)))


def ids(folder: Path, target: Path) -> None:
    # Rust panics once it is looked up.
    edit(folder / 'tokenizer.json', lambda c: c['model']['vocab'].pop('<unk>'))


HOSTILE = {
    'code': of_code,
    'pickles': of_pickles,
    'panic': ids,
    'deep': lambda f, _: (f / 'tokenizer.json').write_text('[' * 100_000),
    'a list': lambda f, _: (f / 'tokenizer_config.json').write_text('[]'),
    'a padding': lambda f, _: edit(f / 'tokenizer_config.json', lambda c: c.update(pad_token=5)),
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_a_hostile_tokenizer_runs_nothing(kind, tmp_path):
    folder = Path(write_tokenizer(tmp_path / 'tokenizer'))
    HOSTILE[kind](folder, tmp_path / 'ran')
    if kind == 'code':
        VisionLanguagePreprocessor(str(folder), max_length=12)
    else:
        with pytest.raises(BaseException):  # noqa: B017, PT011  (Rust panics are no Exception)
            VisionLanguagePreprocessor(str(folder), max_length=12).tokenize(['of b'])
    assert not (tmp_path / 'ran').exists()


def test_token_numbers_beyond_the_encoder_are_refused(tmp_path):
    folder = Path(write_tokenizer(tmp_path))
    edit(folder / 'tokenizer.json', lambda c: c['model']['vocab'].update(cat=10**6))
    with pytest.raises(UserError, match='number of tokens=1000001'):
        build(str(folder))
