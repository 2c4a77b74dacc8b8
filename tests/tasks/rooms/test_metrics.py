"""Exact match is what SQA3D's tables count, by hand."""

import json

import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.rooms import SQA3DAccuracy
from lm4ve.tasks.rooms.metrics import exact_match, exact_match_by_type, question_type


def test_the_first_word_is_the_type():
    types = {
        'What is behind me?': 'what',
        'is it on?': 'is',
        'Are there chairs?': 'is',
        'HOW many?': 'how',
        '  Can I see it?': 'can',
        'Which is closer?': 'which',
        'If I turn, what is left?': 'other',
        "What's there?": 'other',
        '': 'other',
    }
    assert {question: question_type(question) for question in types} == types


def test_a_match_is_letter_by_letter_among_the_best():
    assert exact_match(['a', 'b'], ['a']) and not exact_match(['a', 'b'], ['b'])
    assert exact_match(['a', 'b'], ['b'], 2) and not exact_match(['A'], ['a'])
    assert exact_match(['a'], ['b', 'a']) and not exact_match([], ['a'], 10)
    for wrong in (('a', ['a']), (['a'], 'a')):
        with pytest.raises(UserError):
            exact_match(*wrong)


def test_shares_by_type():
    hits = [{1: True, 10: True}, {1: False, 10: True}, {1: False, 10: False}]
    assert exact_match_by_type(hits, ['what', 'what', 'is']) == {
        'em@1': pytest.approx(100 / 3),
        'em@10': pytest.approx(200 / 3),
        'em@1/what': 50.0,
        'em@10/what': 100.0,
        'em@1/is': 0.0,
        'em@10/is': 0.0,
    }


def sample(number, question, ranked, answers, **fields):
    return dict(
        question_id=number,
        text=['I stand.', question],
        pred_answer=ranked[0],
        pred_top_answers=ranked,
        gt_answers=answers,
        **fields,
    )


def run(metric, *batches):
    for batch in batches:
        metric.process(None, batch)
    return metric.evaluate(sum(map(len, batches)))


def test_the_metric_counts_hits_and_writes_answers(tmp_path):
    path = tmp_path / 'results.json'
    letters = list('abcdefghijkl')
    found = run(
        SQA3DAccuracy(result_file=str(path)),
        [sample(1, 'What is it?', letters, ['a']), sample(2, 'Are they?', letters, ['j'])],
        # The eleventh is none of ten, and an answer that the model does not know is wrong.
        [sample(3, 'Is it?', letters, ['k']), sample(4, 'Can I?', letters, ['never seen'])],
    )
    assert found == {
        'sqa3d/em@1': 25.0,
        'sqa3d/em@10': 50.0,
        'sqa3d/em@1/what': 100.0,
        'sqa3d/em@10/what': 100.0,
        'sqa3d/em@1/is': 0.0,
        'sqa3d/em@10/is': 50.0,
        'sqa3d/em@1/can': 0.0,
        'sqa3d/em@10/can': 0.0,
    }
    written = json.loads(path.read_text())
    assert [r['question_id'] for r in written] == [1, 2, 3, 4]
    assert written[1] == dict(
        question_id=2, question_type='is', answer='a', top_answers=letters[:10], gt_answers=['j']
    )


def test_the_answer_ranks_first_among_equal_scores():
    tied = sample(1, 'What?', ['a', 'b'], ['a']) | dict(pred_top_answers=['b', 'a'])
    assert run(SQA3DAccuracy(), [tied])['sqa3d/em@1'] == 100.0


def test_questions_without_an_answer_do_not_count(tmp_path):
    known = sample(1, 'What?', ['a'], ['a'], question_type='which')
    assert run(SQA3DAccuracy(), [known, sample(2, 'What?', ['a'], [])]) == {
        f'sqa3d/{k}': 100.0 for k in ('em@1', 'em@10', 'em@1/which', 'em@10/which')
    }
    with pytest.raises(UserError):
        run(SQA3DAccuracy(), [sample(2, 'What?', ['a'], [])])
    file = str(tmp_path / 'results.json')
    assert run(SQA3DAccuracy(result_file=file), [sample(2, 'What?', ['a'], [])]) == {}


def test_a_question_counts_once():
    with pytest.raises(UserError):
        run(SQA3DAccuracy(), [sample(1, 'What?', ['a'], ['a'])] * 2)
