"""Tokenizers of the hub, of folders and of packages; what is wrong with one is said in a line."""

import shutil

import pytest

from lm4ve.errors import UserError
from lm4ve.tasks import vqa
from tests.helpers.hub import COMMIT, add_repository, use_cache
from tests.helpers.vqa.shrink import write_roberta
from tests.helpers.vqa.tiny import write_tokenizer

FIELD = 'model.data_preprocessor.tokenizer'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    use_cache(monkeypatch, tmp_path / 'hub')
    return tmp_path / 'hub'


def preprocessor(name):
    return vqa.VisionLanguagePreprocessor(name, max_length=12)


@pytest.mark.parametrize('revision', ['main', 'v1.0', 'refs/pr/7'])
def test_tokenizer_of_the_hub_equals_that_of_a_folder(cache, revision):
    folder = add_repository(cache, 'org/roberta', write_roberta, revision)
    name = 'org/roberta' if revision == 'main' else f'org/roberta@{revision}'
    hub, local = preprocessor(name), preprocessor(str(folder))
    texts = ['what color is the cat', 'a dog']
    assert hub.tokenizer_type == local.tokenizer_type == 'roberta'
    assert hub.describe()['name'] == name
    for mine, theirs in zip(hub.tokenize(texts), local.tokenize(texts), strict=True):
        assert mine.tolist() == theirs.tolist()


def test_commit_of_the_hub_names_a_tokenizer(cache):
    add_repository(cache, 'org/roberta', write_roberta)
    assert preprocessor(f'org/roberta@{COMMIT}').tokenizer_type == 'roberta'


def test_repository_of_a_tokenizer_alone_is_enough(cache):
    add_repository(cache, 'org/words', write_tokenizer, absent=['config.json'])
    assert preprocessor('org/words').tokenizer_type is None


def without_padding(folder):
    write_tokenizer(folder, model_type='roberta', pad_token=None)


def without_vocabulary(folder):
    write_roberta(folder)
    for file in folder.glob('token*'):
        file.unlink()


def with_damaged_vocabulary(folder):
    write_roberta(folder)
    (folder / 'tokenizer.json').write_text('{')


WRONG = {
    'a misspelt name': (None, 'org/rober', 'the hub was not reached'),
    'a revision that is not there': (
        write_roberta,
        'org/roberta@v9',
        'the hub was not reached',
    ),
    'no padding token': (without_padding, 'org/roberta', 'has no padding token'),
    'no vocabulary': (
        without_vocabulary,
        'org/roberta',
        'tokenizer.json or vocab.json is missing',
    ),
    'a damaged one': (
        with_damaged_vocabulary,
        'org/roberta',
        'no tokenizer that can be read',
    ),
    'no name of the hub': (None, 'roberta', 'no hub id'),
    'a package that is not known': (None, 'package:all-MiniLM', 'Did you mean'),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_tokenizer_is_refused_in_a_line_that_names_the_field(cache, case):
    write, name, reason = WRONG[case]
    if write is not None:
        add_repository(cache, 'org/roberta', write)
    with pytest.raises(UserError, match=reason) as e:
        preprocessor(name)
    message = str(e.value)
    assert message.startswith(f'{FIELD}=')
    assert '\n' not in message and len(message) < 400


def test_tokenizer_that_was_deleted_from_the_cache_is_not_read(cache):
    folder = add_repository(cache, 'org/roberta', write_roberta)
    preprocessor('org/roberta')
    shutil.rmtree(folder)
    with pytest.raises(UserError, match='the hub was not reached'):
        preprocessor('org/roberta')
