"""Accuracies and recalls equal hand-made cases and brute force."""

import json

import pytest
import torch
from mmengine.structures import BaseDataElement

from lm4ve.errors import UserError
from lm4ve.tasks.vqa.answers import normalize_answer
from lm4ve.tasks.vqa.metrics import RetrievalRecall, VQAAccuracy, recall_at, vqa_accuracy


@pytest.mark.parametrize(
    'answer, normal',
    [
        ('The dog', 'dog'),
        ('a', ''),
        ('an apple', 'apple'),
        ('theater', 'theater'),
        ('Two', '2'),
        ('none', '0'),
        ('ten', '10'),
        ('eleven', 'eleven'),
        ('zero-one', '0 1'),
        ('dont', "don't"),
        ('Isnt', "isn't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", 'somebodyd'),
        ('Im', 'im'),  # the official table has it with a capital, which is never seen
        ("let's", "let's"),
        ('red, white', 'red white'),  # beside a space: removed
        ('red,white', 'red white'),  # between letters: a space
        ('1,000', '1000'),  # a comma in a number: all marks are removed
        ('1,000-2,000', '10002000'),
        ('t-shirt', 't shirt'),
        ('- yes-no', 'yesno'),  # every occurrence of a mark is treated alike
        ('yes!', 'yes'),
        ('yes?!', 'yes'),
        ('(left)', 'left'),
        ('"stop"', 'stop'),
        ('what/ever', 'what ever'),
        ("men's", "men's"),
        ('10:30', '10:30'),
        ('$5', '$5'),
        ('3.5', '3.5'),
        ('St. Louis', 'st louis'),
        ('U.S.A.', 'usa'),
        ('p.m', 'pm'),
        ('.5', '.5'),
        ('  many   spaces ', 'many spaces'),
        ('two\nlines\there', '2 lines here'),
    ],
)
def test_answers_are_normalized_as_the_official_evaluation_does(answer, normal):
    assert normalize_answer(answer) == normal


def official(prediction, answers):
    """VQA's accuracy from its definition: the mean over all sets without one annotator."""
    sets = [[a for j, a in enumerate(answers) if j != i] for i in range(len(answers))]
    return sum(min(1, sum(a == prediction for a in s) / 3) for s in sets) / len(sets)


@pytest.mark.parametrize('agreed', range(11))
def test_accuracy_is_the_mean_over_the_ten_sets_without_one_annotator(agreed):
    answers = ['blue'] * agreed + ['red'] * (10 - agreed)
    expected = {0: 0, 1: 0.3, 2: 0.6, 3: 0.9}.get(agreed, 1)
    assert vqa_accuracy('blue', answers) == pytest.approx(expected)
    assert vqa_accuracy('blue', answers) == pytest.approx(official('blue', answers))


def test_both_sides_are_normalized_only_if_the_annotators_differ():
    assert vqa_accuracy('The dog', ['dog'] * 10) == 0
    assert vqa_accuracy('The dog', ['dog'] * 9 + ['cat']) == 1
    assert vqa_accuracy('dog', ['The dog'] * 5 + ['a dog!'] * 5) == 1
    assert vqa_accuracy('2', ['two'] * 10) == 0
    assert vqa_accuracy('2', ['two'] * 9 + ['3']) == 1


def test_space_around_answers_does_not_count_even_if_all_are_equal():
    assert vqa_accuracy(' yes\n', ['yes\t'] * 5 + ['yes'] * 5) == 1
    # Equal once the space is gone, so nothing else is normalized.
    assert vqa_accuracy('Yes', ['yes\t'] * 5 + ['yes'] * 5) == 0


@pytest.mark.parametrize(
    'answers, expected',
    [
        (['Two'], 1),
        (['three'], 0),
        (['two', '2'], 1),
        (['two', 'three'], 0.5),  # of the two sets with one other annotator, one agrees
        (['two', '2', 'three'], 2 / 3),
        (['two', '2', '2 ', 'three'], (3 * 2 / 3 + 1) / 4),
    ],
)
def test_fewer_annotators_than_ten_are_defined(answers, expected):
    assert vqa_accuracy('2', answers) == pytest.approx(expected)


@pytest.mark.parametrize('answers', [[], 'yes', None])
def test_accuracy_without_a_list_of_answers_is_an_error(answers):
    with pytest.raises(ValueError, match='at least one string'):
        vqa_accuracy('yes', answers)


def brute_force(scores, owner, k):
    """Recall by sorting all scores."""
    images, captions = scores.shape
    found = []
    for i in range(images):
        if i in owner:
            best = sorted(range(captions), key=lambda t: (-float(scores[i, t]), t))[:k]
            found.append(any(owner[t] == i for t in best))
    by_caption = []
    for t in range(captions):
        best = sorted(range(images), key=lambda i: (-float(scores[i, t]), i))[:k]
        by_caption.append(owner[t] in best)
    return 100 * sum(found) / len(found), 100 * sum(by_caption) / len(by_caption)


@pytest.mark.parametrize('levels', [3, 10**6])  # many equal scores, and none
def test_recall_equals_brute_force_with_several_captions_an_image(levels):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        scores = torch.randint(levels, (12, 31), generator=generator).float()
        owner = torch.randint(11, (31,), generator=generator).tolist()  # one has none
        result = recall_at(scores, owner, (1, 2, 5, 10))
        for k in (1, 2, 5, 10):
            both = result[f'image_to_text/R@{k}'], result[f'text_to_image/R@{k}']
            assert both == pytest.approx(brute_force(scores, owner, k))


def test_recall_of_a_small_table_by_hand():
    # Two images, captions 0 and 1 are of the first, 2 of the second.
    scores = torch.tensor([[0.9, 0.1, 0.8], [0.2, 0.7, 0.6]])
    assert recall_at(scores, [0, 0, 1], (1, 2)) == {
        'image_to_text/R@1': 50.0,
        'image_to_text/R@2': 100.0,
        'text_to_image/R@1': pytest.approx(100 / 3),
        'text_to_image/R@2': 100.0,
    }


def test_a_model_that_tells_nothing_has_the_recall_of_chance():
    result = recall_at(torch.zeros(10, 10), range(10), (1,))
    assert result == {'image_to_text/R@1': 10.0, 'text_to_image/R@1': 10.0}


@pytest.mark.parametrize('score, owner', [(torch.nan, 1), (0.0, -1)])
def test_scores_that_would_give_a_wrong_recall_are_an_error(score, owner):
    with pytest.raises(ValueError, match='not a number'):
        recall_at(torch.full((2, 2), score), [0, owner])


# -------------------------------------------------------------------- the metrics
def answered(question_id, prediction, answers=(), answer_type=None):
    known = dict(question_id=question_id, gt_answers=list(answers), answer_type=answer_type)
    sample = BaseDataElement(metainfo={k: v for k, v in known.items() if v is not None})
    sample.pred_answer = prediction
    return sample.to_dict()


def test_accuracy_is_reported_overall_and_by_type_in_percent():
    metric = VQAAccuracy()
    metric.process(None, [answered(1, 'yes', ['yes'] * 10, 'yes/no')])
    metric.process(
        None, [answered(2, 'no', ['yes'] * 10, 'yes/no'), answered(3, '2', ['2'], 'number')]
    )
    metric.process(None, [answered(4, 'red', ['red'] * 2 + ['blue'] * 8, 'other')])
    assert metric.evaluate(4) == pytest.approx(
        {'vqa/overall': 65.0, 'vqa/yes-no': 50.0, 'vqa/number': 100.0, 'vqa/other': 60.0}
    )


def test_the_result_file_has_the_form_of_the_evaluation_server(tmp_path):
    path = tmp_path / 'results' / 'vqa.json'
    metric = VQAAccuracy(result_file=str(path))
    metric.process(None, [answered(262144000, 'yes'), answered(7, 'gray')])
    assert metric.evaluate(2) == {}
    assert json.loads(path.read_text()) == [
        {'question_id': 262144000, 'answer': 'yes'},
        {'question_id': 7, 'answer': 'gray'},
    ]


@pytest.mark.parametrize('ids', [(1, 1), (1, None)])
def test_a_result_file_needs_one_id_a_question(ids, tmp_path):
    metric = VQAAccuracy(result_file=str(tmp_path / 'vqa.json'))
    metric.process(None, [answered(i, 'yes') for i in ids])
    with pytest.raises(UserError, match='question ids are missing or occur twice'):
        metric.evaluate(2)
    assert not (tmp_path / 'vqa.json').exists()


def test_a_test_set_without_answers_needs_a_result_file():
    metric = VQAAccuracy()
    metric.process(None, [answered(1, 'yes')])
    with pytest.raises(UserError, match='result_file'):
        metric.evaluate(1)


def test_questions_without_answers_do_not_count():
    metric = VQAAccuracy()
    metric.process(None, [answered(1, 'yes'), answered(2, 'yes', ['yes'])])
    assert metric.evaluate(2) == {'vqa/overall': 100.0}


def test_retrieval_reports_recalls_their_mean_and_the_price_of_coarse_scores():
    exact, owner = torch.eye(4), torch.arange(4)
    coarse = exact.roll(1, 0)
    metric = RetrievalRecall(ks=(1, 2))
    sample = dict(scores=coarse, exact_scores=exact, image_of_caption=owner)
    metric.process(None, [sample])
    result = metric.evaluate(1)
    plain = recall_at(coarse, owner, (1, 2))
    assert result['retrieval/mean'] == pytest.approx(sum(plain.values()) / 4)
    assert result['retrieval/coarse_loss/text_to_image/R@1'] == 100 - plain['text_to_image/R@1']
