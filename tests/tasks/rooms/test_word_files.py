"""What SQA3D's models need beside questions: vectors of their words, and answers."""

import json
import pickle
from functools import partial
from zipfile import BadZipFile

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.rooms.models.language import read_word_vectors
from lm4ve.tasks.rooms.models.proposals import read_mean_sizes
from tests.helpers.tools import run_tool_here
from tests.tasks.rooms.scenes import entries, official

ENTRIES = entries(['scene0000_00', 'scene0001_00'])
GLOVE = {'unk': (1, 2), 'what': (3, 4), 'zebra': (5, 6), 'table': (7, 8), '?': (9, 0), 'Is': (0, 1)}
#: As in GloVe's largest file: a word that holds spaces.
SPACED = '. . 0.5 0.25\n'


@pytest.fixture
def folder(tmp_path):
    lines = ''.join(f'{word} {x} {y}\n' for word, (x, y) in GLOVE.items())
    (tmp_path / 'glove.txt').write_text(lines + SPACED)
    questions, annotations = official(ENTRIES)
    for name, content in dict(list=ENTRIES, questions=questions, annotations=annotations).items():
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize('kind', ['list', 'questions'])
def test_vectors_of_the_words_of_texts_are_kept(kind, folder, capsys):
    out = folder / 'glove.npz'
    tool = 'vision_language/make_word_vectors.py'
    run_tool_here(tool, folder / 'glove.txt', out, folder / f'{kind}.json')
    texts = ' '.join(f'{e["situation"]} {e["question"]}' for e in ENTRIES)
    said = set(texts.replace('.', ' . ').replace('?', ' ? ').split())
    kept = {w: v for w, v in GLOVE.items() if w in {*said, *(s.lower() for s in said), 'unk'}}
    assert 'zebra' not in kept and len(kept) > 2
    found = read_word_vectors(out)
    assert found.rows.keys() == kept.keys()
    for word, vector in kept.items():
        np.testing.assert_array_equal(found.vectors[found.rows[word]], vector)
    assert f'{len(said & GLOVE.keys())} of the {len(said)} words' in capsys.readouterr().out


REFUSED = (ValueError, LookupError, BadZipFile)


@pytest.mark.parametrize(
    'content', ['what 1 2\n', 'unk 1 2\nwhat 1\n', 'unk a b\n', '', 'unk 1 2\nwhat 1 2']
)
def test_another_file_than_glove_is_refused(content, folder):
    (folder / 'glove.txt').write_text(content)
    args = folder / 'glove.txt', folder / 'out.npz', folder / 'list.json'
    with pytest.raises(REFUSED):
        run_tool_here('vision_language/make_word_vectors.py', *args)
    assert not (folder / 'out.npz').exists()


def test_pickle_of_vectors_is_not_opened(tmp_path):
    (tmp_path / 'glove.p').write_bytes(pickle.dumps(GLOVE))
    with pytest.raises(ValueError, match='pickle'):
        read_word_vectors(tmp_path / 'glove.p')


@pytest.mark.parametrize(
    'read', [read_word_vectors, partial(read_mean_sizes, field_name='mean_sizes')]
)
def test_archive_with_wrong_checksum_is_refused(read, tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, words=['unk'], vectors=np.ones((1, 3), dtype='f4'))
    data = path.read_bytes()
    at = data.index(np.array('unk').tobytes())
    path.write_bytes(data[:at] + b'x' + data[at + 1 :])
    with pytest.raises(REFUSED):
        read(path)


def test_vectors_must_be_finite(tmp_path):
    np.savez(tmp_path / 'a.npz', words=['unk'], vectors=np.full((1, 3), np.nan))
    with pytest.raises(UserError):
        read_word_vectors(tmp_path / 'a.npz')


@pytest.mark.parametrize('kind', ['list', 'annotations'])
def test_every_answer_is_counted(kind, folder, capsys):
    out = folder / 'answer_counter.json'
    run_tool_here('vision_language/make_answer_counter.py', out, folder / f'{kind}.json')
    expected = [a for e in ENTRIES for a in e['answers']]
    assert sorted(json.loads(out.read_text())) == sorted(expected)
    assert f'{len(expected)} answers, {len(set(expected))} different' in capsys.readouterr().out


def test_a_file_of_questions_has_no_answers(folder):
    args = folder / 'out.json', folder / 'questions.json'
    with pytest.raises(UserError, match='questions.json'):
        run_tool_here('vision_language/make_answer_counter.py', *args)
