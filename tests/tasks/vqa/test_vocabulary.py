"""Which answers a model can give, and what each of them is worth in training."""

import json
import pickle

import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.vqa.answers import build_vocabulary, read_vocabulary, soft_scores
from tests.helpers.tools import run_tool_here
from tests.tasks.vqa import files


def test_vocabulary_keeps_first_occurrence_order():
    answers = ['The red', 'two', 'red', '2', 'blue', 'red!', 'Two', 'the']
    assert build_vocabulary(answers, min_count=3) == ['red', '2']
    assert build_vocabulary(answers, min_count=1) == ['red', '2', 'blue']
    assert build_vocabulary(['b ', 'A', 'b', ' '], min_count=1, normalize=False) == ['b', 'A']
    with pytest.raises(UserError):
        build_vocabulary(['yes', 'no'])


@pytest.mark.parametrize(
    'answers, expected',
    [
        (['yes'] * 2 + ['Yes'] + ['no'] * 7, dict(yes=0.6, Yes=0.3, no=1)),
        (['yes'] * 3 + ['no'] * 4 + ['red'] * 3, dict(yes=0.9, no=1, red=0.9)),
        (['2'], {'2': 1}),
        (['2'] * 10, {'2': 1}),
        (['2', '3'], {'2': 0.3, '3': 0.3}),
        ([], {}),
    ],
)
def test_soft_scores_count_agreeing_annotators(answers, expected):
    assert soft_scores(answers) == expected


@pytest.mark.parametrize(
    'content',
    [
        b'["yes", "no", "yes"]',
        b'["yes", ""]',
        b'["yes", 2]',
        b'["yes", "n\\no"]',
        b'[]',
        b'{"yes": 0}',
        pickle.dumps(['yes']),
    ],
)
def test_bad_vocabulary_is_refused(content, tmp_path):
    path = tmp_path / 'v.json'
    path.write_bytes(content)
    with pytest.raises(UserError, match='^model.head.vocabulary'):
        read_vocabulary(path, 'model.head.vocabulary')


def test_tool_writes_what_a_head_reads(tmp_path, capsys):
    root = files.write_vqav2(tmp_path / 'coco', {'train2014': 5, 'val2014': 5})
    splits = [root / f'vqav2/v2_mscoco_{s}_annotations.json' for s in ('train2014', 'val2014')]
    out = tmp_path / 'v.json'
    run_tool_here('vision_language/make_vocabulary.py', out, *splits, '--min-count', 4)
    # Ten questions a split: each of five answers is the majority of two of them.
    assert read_vocabulary(out) == ('no', '2', 'red', 'blue', 'yes')
    assert '5 answers. 20 of 20 questions (100.0%)' in capsys.readouterr().out


def test_tool_reads_own_questions(tmp_path):
    rows = [dict(image='a', question='?', answers=a) for a in ('The cat|cat|cat', 'Dog', '')]
    files.write_csv(tmp_path / 'q.csv', rows)
    out = tmp_path / 'v.json'
    for more, expected in (((), ['cat', 'dog']), (('--raw',), ['cat', 'Dog'])):
        arguments = out, tmp_path / 'q.csv', '--min-count', 1, *more
        run_tool_here('vision_language/make_vocabulary.py', *arguments)
        assert json.loads(out.read_text()) == expected
