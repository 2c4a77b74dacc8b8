"""What becomes of clouds, colors and words on their way into the model."""

import copy

import numpy as np
import pytest
import torch

from lm4ve.tasks.rooms.models.language import read_word_vectors, split_words
from lm4ve.tasks.rooms.models.preprocessor import SQA3DPreprocessor
from tests.tasks.rooms.tiny import VECTORS, batch

#: The error of whoever notices.
REFUSED = (ValueError, LookupError, TypeError, RuntimeError, OSError)


def preprocessor(**changes):
    return SQA3DPreprocessor(**(dict(word_vectors=VECTORS) | changes))


def test_colors_are_normalized_in_a_copy():
    data = batch()
    before = copy.deepcopy(data['inputs']['points'])
    twice = [preprocessor()(data)['inputs']['points'] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(data['inputs']['points'], before, strict=True))
    assert torch.equal(*twice)
    colors = (before[0][:, 3:6] - torch.tensor([109.8, 97.2, 83.8])) / 256
    torch.testing.assert_close(twice[0][0, :, 3:6], colors)
    for columns in (slice(0, 3), slice(6, 7)):
        assert torch.equal(twice[0][0][:, columns], before[0][:, columns])
    assert torch.equal(preprocessor(color_columns=None)(data)['inputs']['points'][0], before[0])


def test_clouds_of_different_sizes_are_padded():
    inputs = preprocessor()(batch((30, 20)))['inputs']
    assert inputs['points'].shape == (2, 30, 7)
    assert inputs['points_padding'].sum(1).tolist() == [0, 10]
    assert inputs['points_padding'][1, 20:].all()
    assert preprocessor()(batch((30, 30)))['inputs']['points_padding'] is None


def test_words_are_looked_up_as_the_release_does():
    assert split_words('I am here.  What is it?') == 'I am here . What is it ?'.split()
    texts = ['I am left.', 'What is left?']
    inputs = preprocessor()(batch((9, 9), text=texts))['inputs']
    rows = [VECTORS[w] for w in ('unk', 'is', 'left', '?')]
    torch.testing.assert_close(inputs['question'][0], torch.tensor(rows))
    lower = preprocessor(lower_case=True)(batch((9, 9), text=texts))['inputs']
    torch.testing.assert_close(lower['question'][0, 0], torch.tensor(VECTORS['what']))
    hidden = preprocessor(use_situation=False)(batch((9, 9), text=texts))['inputs']
    torch.testing.assert_close(hidden['situation'][0], torch.tensor([VECTORS['unk']] * 4))
    assert torch.equal(hidden['question'], inputs['question'])


def test_long_texts_are_cut_and_counted():
    short = preprocessor(max_length=3)
    inputs = short(batch((9, 9)))['inputs']
    assert inputs['situation'].shape[1] == inputs['question'].shape[1] == 3
    assert short.num_truncated == 4
    assert not inputs['situation_padding'].any()


def test_word_vectors_are_read_from_files_and_shared_by_copies(tmp_path):
    words, vectors = list(VECTORS), np.array(list(VECTORS.values()), dtype=np.float32)
    np.savez(tmp_path / 'glove.npz', words=np.array(words), vectors=vectors)
    lines = [' '.join([w, *map(repr, map(float, v))]) for w, v in zip(words, vectors, strict=True)]
    (tmp_path / 'glove.txt').write_text('\n'.join(lines) + '\n')
    for name in ('glove.npz', 'glove.txt'):
        found = read_word_vectors(tmp_path / name)
        assert found.rows['left'] == words.index('left')
        np.testing.assert_array_equal(found.vectors, vectors)
        assert copy.deepcopy(found) is found
    np.savez(tmp_path / 'objects.npz', words=np.array(words, dtype=object), vectors=vectors)
    for name in ('objects.npz', 'none.txt'):
        with pytest.raises(REFUSED):
            read_word_vectors(tmp_path / name)
    with pytest.raises(REFUSED):
        read_word_vectors(dict(a=[1.0]))


@pytest.mark.parametrize(
    'change',
    [
        lambda d: d['inputs']['points'][1][3:5].fill_(torch.nan),
        lambda d: d['inputs'].update(points=[torch.zeros(0, 7)] * 2),
        lambda d: d['inputs'].update(objects=[torch.zeros(0, 3)] * 2),
        lambda d: d['inputs']['points'].__setitem__(0, torch.zeros(9, 4)),
        lambda d: d['data_samples'][1].set_metainfo(dict(text=['a', ' '])),
        lambda d: d['data_samples'][1].set_metainfo(dict(text=['a'])),
        lambda d: d['inputs'].update(points=[torch.zeros(9, 4)] * 2),
    ],
)
def test_invalid_batches_are_refused(change):
    data = batch((9, 9))
    change(data)
    with pytest.raises(REFUSED):
        preprocessor()(data)
