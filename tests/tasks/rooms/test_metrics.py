"""Exact match is what SQA3D's tables count, by hand."""

import json

import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.rooms import SQA3DAccuracy
from lm4ve.tasks.rooms.metrics import question_type

LETTERS = list('abcdefghijkl')


@pytest.mark.parametrize(
    'question, expected',
    [
        ('What is it?', 'what'),
        ('  Are it?', 'is'),  # spaces before it do not count
        ('  HOW it?', 'how'),
        ('  Can it?', 'can'),
        ('  Which it?', 'which'),
        ('  If it?', 'other'),
        ("What's there?", 'other'),  # not the word 'what'
        ('', 'other'),
    ],
)
def test_the_first_word_is_the_type(question, expected):
    assert question_type(question) == expected


def sample(number, question, answers, ranked=LETTERS, **fields):
    """Return an answered question; ``ranked`` are the predicted answers, the likeliest first."""
    sample = dict(
        question_id=number,
        text=['I stand.', question],
        gt_answers=answers,
        pred_answer=ranked[0],
        pred_top_answers=ranked,
    )
    return sample | fields


def run(*batches, **options):
    """Return the metrics of batches of samples; the options are the metric's."""
    metric = SQA3DAccuracy(**options)
    for batch in batches:
        metric.process(None, batch)
    return metric.evaluate(sum(map(len, batches)))


def test_the_metric_counts_hits_and_writes_answers(tmp_path):
    path = tmp_path / 'results.json'
    found = run(
        [sample(1, 'What is it?', ['z', 'a']), sample(2, 'Are they?', ['j'])],
        # The eleventh is none of ten, and letters count as they are written.
        [sample(3, 'Is it?', ['k']), sample(4, 'Can I?', ['A'])],
        result_file=str(path),
    )
    expected = {'': (25, 50), '/what': (100, 100), '/is': (0, 50), '/can': (0, 0)}
    assert found == {
        f'sqa3d/em@{k}{kind}': share
        for kind, shares in expected.items()
        for k, share in zip((1, 10), shares, strict=True)
    }
    written = json.loads(path.read_text())
    assert [r['question_id'] for r in written] == [1, 2, 3, 4]
    assert written[1] == dict(
        question_id=2,
        question_type='is',
        answer='a',
        top_answers=LETTERS[:10],
        gt_answers=['j'],
    )


def test_the_answer_ranks_first_among_equal_scores():
    tied = sample(1, 'What?', ['a'], pred_top_answers=['b', 'a'])
    assert run([tied])['sqa3d/em@1'] == 100.0


def test_questions_without_an_answer_do_not_count(tmp_path):
    known, unknown = (
        sample(1, 'What?', ['a'], question_type='which'),
        sample(2, 'What?', []),
    )
    names = ('em@1', 'em@10', 'em@1/which', 'em@10/which')
    assert run([known, unknown]) == {f'sqa3d/{name}': 100.0 for name in names}
    assert run([unknown], result_file=str(tmp_path / 'results.json')) == {}
    for wrong in ([unknown], [known, known]):
        with pytest.raises(UserError):
            run(wrong)
