"""Vectors of words and answers in files, and what the preprocessor makes of a batch."""

import copy
import json
import pickle
from zipfile import BadZipFile

import numpy as np
import pytest
import torch

from lm4ve.tasks.rooms.models.language import read_word_vectors, split_words
from lm4ve.tasks.rooms.models.objects import read_mean_sizes
from lm4ve.tasks.rooms.models.preprocessor import SQA3DPreprocessor
from tests.helpers.tools import run_tool_here
from tests.tasks.rooms.scenes import entries, official
from tests.tasks.rooms.tiny import VECTORS, batch

ENTRIES = entries(['scene0000_00', 'scene0001_00'])
GLOVE = {'unk': (1, 2), 'what': (3, 4), 'zebra': (5, 6), 'table': (7, 8), '?': (9, 0), 'Is': (0, 1)}
REFUSED = (ValueError, LookupError, OSError, BadZipFile)


@pytest.fixture
def folder(tmp_path):
    lines = ''.join(f'{word} {x} {y}\n' for word, (x, y) in GLOVE.items())
    # As in GloVe's largest file: a word that holds spaces.
    (tmp_path / 'glove.txt').write_text(lines + '. . 0.5 0.25\n')
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
    words = set(texts.replace('.', ' . ').replace('?', ' ? ').split())
    kept = {w: v for w, v in GLOVE.items() if w in {*words, *(w.lower() for w in words), 'unk'}}
    assert 'zebra' not in kept and len(kept) > 2
    for found in (read_word_vectors(out), copy.deepcopy(read_word_vectors(folder / 'glove.txt'))):
        assert found.rows.keys() >= kept.keys()
        for word, vector in kept.items():
            np.testing.assert_array_equal(found.vectors[found.rows[word]], vector)
    assert read_word_vectors(out).rows.keys() == kept.keys()
    assert f'{len(words & GLOVE.keys())} of the {len(words)} words' in capsys.readouterr().out


@pytest.mark.parametrize(
    'content', ['what 1 2\n', 'unk 1 2\nwhat 1\n', 'unk a b\n', 'unk nan 1\n', '', 'unk 1 2']
)
def test_another_file_than_glove_is_refused(content, folder):
    (folder / 'glove.txt').write_text(content)
    args = folder / 'glove.txt', folder / 'out.npz', folder / 'list.json'
    with pytest.raises(REFUSED):
        run_tool_here('vision_language/make_word_vectors.py', *args)
    assert not (folder / 'out.npz').exists()


@pytest.mark.parametrize('read', [read_word_vectors, read_mean_sizes])
def test_pickles_and_wrong_checksums_are_refused(read, tmp_path):
    (tmp_path / 'a.p').write_bytes(pickle.dumps(GLOVE))
    np.savez(tmp_path / 'objects.npz', words=np.array(['unk'], dtype=object), vectors=[[1.0]])
    path = tmp_path / 'a.npz'
    np.savez(path, words=['unk'], vectors=np.ones((1, 3), dtype='f4'))
    path.write_bytes(path.read_bytes().replace(np.array('unk').tobytes(), b'x' * 12, 1))
    for name in ('a.p', 'objects.npz', 'a.npz', 'none.npz'):
        with pytest.raises(REFUSED):
            read(tmp_path / name)


@pytest.mark.parametrize('kind', ['list', 'annotations'])
def test_every_answer_is_counted(kind, folder, capsys):
    out, tool = folder / 'answer_counter.json', 'vision_language/make_answer_counter.py'
    run_tool_here(tool, out, folder / f'{kind}.json')
    expected = [a for e in ENTRIES for a in e['answers']]
    assert sorted(json.loads(out.read_text())) == sorted(expected)
    assert f'{len(expected)} answers, {len(set(expected))} different' in capsys.readouterr().out
    with pytest.raises(REFUSED):
        run_tool_here(tool, out, folder / 'questions.json')


# ------------------------------------------------------------------- the preprocessor
def preprocessor(**changes):
    return SQA3DPreprocessor(**(dict(word_vectors=VECTORS) | changes))


def test_colors_are_normalized_in_a_copy():
    data = batch()
    before = copy.deepcopy(data['inputs']['points'])
    found = preprocessor()(data)['inputs']['points']
    assert all(torch.equal(a, b) for a, b in zip(data['inputs']['points'], before, strict=True))
    colors = (before[0][:, 3:6] - torch.tensor([109.8, 97.2, 83.8])) / 256
    torch.testing.assert_close(found[0, :, 3:6], colors)
    assert torch.equal(found[0][:, [0, 1, 2, 6]], before[0][:, [0, 1, 2, 6]])
    assert torch.equal(preprocessor(color_columns=())(data)['inputs']['points'][0], before[0])
    torch.testing.assert_close(preprocessor().restore_colors(found)[0], before[0])
    released = preprocessor(color_passes=2)
    found = released(data)['inputs']['points']
    expected = (colors - torch.tensor([109.8, 97.2, 83.8])) / 256
    torch.testing.assert_close(found[0, :, 3:6], expected)
    torch.testing.assert_close(released.restore_colors(found)[0], before[0], rtol=0, atol=0.01)


def test_words_are_looked_up_as_the_release_does():
    # Every space but one behind a word is a word, as for spaCy's bare tokenizer.
    for text, expected in {
        'I am here. What is it?': 'I am here . What is it ?',
        'Is it red ?': 'Is it red unk ?',
        'Hm ...': 'Hm unk . . .',
        ' a  b\tc  ': 'unk a unk b unk c unk',
    }.items():
        assert split_words(text) == expected.split()
    data = batch((9, 9), text=['I am left.', 'What is left?'])
    inputs = preprocessor()(data)['inputs']
    rows = [VECTORS[w] for w in ('unk', 'is', 'left', '?')]
    torch.testing.assert_close(inputs['question'][0], torch.tensor(rows))
    lower = preprocessor(lower_case=True)(data)['inputs']
    torch.testing.assert_close(lower['question'][0, 0], torch.tensor(VECTORS['what']))
    hidden = preprocessor(use_situation=False)(data)['inputs']
    torch.testing.assert_close(hidden['situation'][0], torch.tensor([VECTORS['unk']] * 4))
    assert torch.equal(hidden['question'], inputs['question'])


def test_long_texts_are_cut_and_counted():
    short = preprocessor(max_length=3)
    inputs = short(batch((9, 9)))['inputs']
    assert inputs['situation'].shape[1] == inputs['question'].shape[1] == 3
    assert short.num_truncated == 4 and not inputs['situation_padding'].any()
