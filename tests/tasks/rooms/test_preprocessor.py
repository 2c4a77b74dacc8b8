"""What becomes of clouds, colors and words on their way into the model."""

import copy

import torch

from lm4ve.tasks.rooms.models.language import split_words
from lm4ve.tasks.rooms.models.preprocessor import SQA3DPreprocessor
from tests.tasks.rooms.tiny import VECTORS, batch


def preprocessor(**changes):
    return SQA3DPreprocessor(**(dict(word_vectors=VECTORS) | changes))


def test_colors_are_normalized_in_a_copy():
    data = batch()
    before = copy.deepcopy(data['inputs']['points'])
    found = preprocessor()(data)['inputs']['points']
    assert all(torch.equal(a, b) for a, b in zip(data['inputs']['points'], before, strict=True))
    colors = (before[0][:, 3:6] - torch.tensor([109.8, 97.2, 83.8])) / 256
    torch.testing.assert_close(found[0, :, 3:6], colors)
    for columns in (slice(0, 3), slice(6, 7)):
        assert torch.equal(found[0][:, columns], before[0][:, columns])
    assert torch.equal(preprocessor(color_columns=())(data)['inputs']['points'][0], before[0])
    torch.testing.assert_close(preprocessor().restore_colors(found)[0], before[0])


def test_clouds_of_different_sizes_are_padded():
    inputs = preprocessor()(batch((30, 20)))['inputs']
    assert inputs['points'].shape == (2, 30, 7)
    assert inputs['points_padding'].tolist() == [[False] * 30, [False] * 20 + [True] * 10]
    assert preprocessor()(batch((30, 30)))['inputs']['points_padding'] is None


def test_words_are_looked_up_as_the_release_does():
    assert split_words('I am here.  What is it?') == 'I am here . What is it ?'.split()
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
    assert short.num_truncated == 4
    assert not inputs['situation_padding'].any()
