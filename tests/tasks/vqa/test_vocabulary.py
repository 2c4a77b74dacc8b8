"""Which answers a model knows, and what each of them is worth in training."""

import json
import pickle

import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.vqa.answers import build_vocabulary
from lm4ve.tasks.vqa.datasets.vocabulary import read_vocabulary, soft_scores
from tests.helpers.tools import run_tool_here
from tests.tasks.vqa import files


def test_vocabulary_keeps_first_occurrence_order():
    answers = ['The red', 'two', 'red', '2', 'blue', 'red!', 'Two', 'the']
    assert build_vocabulary(answers, min_count=3) == ['red', '2']
    assert build_vocabulary(answers, min_count=1) == ['red', '2', 'blue']
    assert build_vocabulary(['b ', 'A', 'b', ' '], min_count=1, normalize=False) == ['b', 'A']


def test_a_vocabulary_without_answers_is_refused():
    with pytest.raises(UserError, match='None of the 2 answers of 2 questions occurs 9 times'):
        build_vocabulary(['yes', 'no'])


@pytest.mark.parametrize('count, score', [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (5, 1), (9, 1)])
def test_scores_follow_from_the_number_of_annotators(count, score):
    found = soft_scores(['yes'] * count + ['Yes'] + ['no'] * (9 - count))
    assert found['yes'] == score and found['Yes'] == 0.3  # texts are compared as they are


def test_an_answer_of_all_annotators_is_right_however_few_they_are():
    assert soft_scores(['2']) == {'2': 1} == soft_scores(['2'] * 10)
    assert soft_scores(['2', '3']) == {'2': 0.3, '3': 0.3}
    assert soft_scores([]) == {}


def test_a_file_and_a_list_are_read_alike(tmp_path):
    path = files.write_json(tmp_path / 'v.json', ['yes', 'no'])
    assert read_vocabulary(path) == read_vocabulary(['yes', 'no']) == ('yes', 'no')


@pytest.mark.parametrize(
    'content',
    [
        b'["yes", "no", "yes"]',
        b'["yes", ""]',
        b'["yes", 2]',
        b'["yes", "n\\no"]',
        b'[]',
        b'{"yes": 0}',
        b'["yes", "n',
        pickle.dumps(['yes']),
    ],
)
def test_a_bad_vocabulary_is_refused_with_its_field(content, tmp_path):
    path = tmp_path / 'v.json'
    path.write_bytes(content)
    with pytest.raises(UserError, match='^model.head.vocabulary'):
        read_vocabulary(path, 'model.head.vocabulary')


def test_the_tool_writes_what_a_data_set_and_a_head_read(tmp_path, capsys):
    root = files.write_vqav2(tmp_path / 'coco', {'train2014': 5, 'val2014': 5})
    splits = [root / f'vqav2/v2_mscoco_{s}_annotations.json' for s in ('train2014', 'val2014')]
    out = tmp_path / 'v.json'
    run_tool_here('vision_language/make_vocabulary.py', out, *splits, '--min-count', 4)
    # Ten questions a split: each of five answers is the majority of two of them.
    assert read_vocabulary(out) == ('no', '2', 'red', 'blue', 'yes')
    assert '5 answers. 20 of 20 questions (100.0%)' in capsys.readouterr().out


def test_the_tool_reads_own_questions(tmp_path, capsys):
    rows = [dict(image='a', question='?', answers=a) for a in ('The cat|cat|cat', 'Dog', '')]
    files.write_csv(tmp_path / 'q.csv', rows)
    out = tmp_path / 'v.json'
    more = '--min-count', 1
    run_tool_here('vision_language/make_vocabulary.py', out, tmp_path / 'q.csv', *more)
    assert json.loads(out.read_text()) == ['cat', 'dog']
    assert '1 of 2 questions (50.0%)' in capsys.readouterr().out  # nobody wrote 'dog'
    run_tool_here('vision_language/make_vocabulary.py', out, tmp_path / 'q.csv', *more, '--raw')
    assert json.loads(out.read_text()) == ['cat', 'Dog']
