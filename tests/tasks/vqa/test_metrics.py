"""Accuracies, recalls and targets equal their definitions; loops score as one pair at a time."""

import json
import pickle
from unittest.mock import Mock, patch

import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.tasks.vqa.datasets.answers import (
    build_vocabulary,
    normalize_answer,
    read_vocabulary,
    soft_scores,
)
from lm4ve.tasks.vqa.loops import encode_captions, score_images
from lm4ve.tasks.vqa.metrics import VQAAccuracy, recall_at, vqa_accuracy
from lm4ve.tasks.vqa.models.heads import VQAHead
from tests.helpers import quick_python
from tests.helpers.processes import environment
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_command, run_tool_here
from tests.helpers.vqa import files, tiny
from tests.helpers.vqa.retrieval_run import CAPTIONS, runner_of, validate, write

#: Answers in VQA's normal form, checked against the official evaluation's code.
NORMAL = {
    'The dog': 'dog',
    'a': '',
    'zero-one': '0 1',
    'Im': 'im',  # the official table has it with a capital, which is never seen
    'red,white': 'red white',  # between letters: a space
    '1,000-2,000': '10002000',  # a comma in a number: all marks are removed
    '- yes-no': 'yesno',  # every occurrence of a mark is treated alike
    '10:30': '10:30',
    'U.S.A.': 'usa',
    'two\nlines\there': '2 lines here',
}


@pytest.mark.parametrize('answer', NORMAL)
def test_answers_are_normalized_officially(answer):
    assert normalize_answer(answer) == NORMAL[answer]


@pytest.mark.parametrize('agreed', range(11))
def test_accuracy_leaves_one_annotator_out(agreed):
    answers = ['blue'] * agreed + ['red'] * (10 - agreed)
    sets = [answers[:i] + answers[i + 1 :] for i in range(10)]
    expected = sum(min(1, s.count('blue') / 3) for s in sets) / 10
    assert vqa_accuracy('blue', answers) == pytest.approx(expected)


ACCURACIES = [
    # Both sides are normalized only if the annotators differ, space apart.
    ('The dog', ['dog'] * 10, 0),
    ('The dog', ['dog'] * 9 + ['cat'], 1),
    ('dog', ['The dog'] * 5 + ['a dog!'] * 5, 1),
    ('2', ['two'] * 10, 0),
    (' yes\n', ['yes\t'] * 5 + ['yes'] * 5, 1),
    ('Yes', ['yes\t'] * 5 + ['yes'] * 5, 0),
    # Fewer annotators than ten.
    ('2', ['Two'], 1),
    ('2', ['two', '2', '2 ', 'three'], (3 * 2 / 3 + 1) / 4),
]


@pytest.mark.parametrize('prediction, answers, expected', ACCURACIES)
def test_accuracy_of_hand_made_cases(prediction, answers, expected):
    assert vqa_accuracy(prediction, answers) == pytest.approx(expected)


def brute_force(scores, owner, k):
    """Recall by sorting all scores; of equal ones the first counts."""
    captions, images = (
        scores.argsort(dim=d, descending=True, stable=True) for d in (1, 0)
    )
    by_image = torch.stack([owner[captions[i, :k]].eq(i).any() for i in owner.unique()])
    by_caption = images[:k].eq(owner).any(0)
    return 100 * float(by_image.double().mean()), 100 * float(
        by_caption.double().mean()
    )


@pytest.mark.parametrize('levels', [1, 3, 10**6])  # all scores equal, many, none
def test_recall_equals_brute_force(levels):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(levels, (12, 31), generator=generator).float()
    owner = torch.randint(11, (31,), generator=generator)  # one has none
    result = recall_at(scores, owner, (1, 2, 5, 10))
    for k in (1, 2, 5, 10):
        both = result[f'image_to_text/R@{k}'], result[f'text_to_image/R@{k}']
        assert both == pytest.approx(brute_force(scores, owner, k))


@pytest.mark.parametrize('score, owner', [(torch.nan, 1), (0.0, -1)])
def test_recall_refuses_what_would_be_wrong(score, owner):
    with pytest.raises(UserError):
        recall_at(torch.full((2, 2), score), [0, owner])


def answered(question_id, prediction, answers=(), answer_type=None):
    known = dict(
        question_id=question_id, gt_answers=list(answers), answer_type=answer_type
    )
    return dict(known, pred_answer=prediction)


def test_accuracy_is_reported_by_type():
    metric = VQAAccuracy()
    yes = ['yes'] * 10
    metric.process(None, [answered(1, 'yes', yes, 'yes/no'), answered(5, 'yes')])
    metric.process(
        None, [answered(2, 'no', yes, 'yes/no'), answered(3, '2', ['2'], 'number')]
    )
    metric.process(None, [answered(4, 'red', ['red'] * 2 + ['blue'] * 8, 'other')])
    assert metric.evaluate(5) == pytest.approx(
        {
            'vqa/overall': 65.0,
            'vqa/yes-no': 50.0,
            'vqa/number': 100.0,
            'vqa/other': 60.0,
        }
    )


def test_result_file_has_the_servers_form(tmp_path):
    path = tmp_path / 'results' / 'vqa.json'
    metric = VQAAccuracy(result_file=str(path))
    metric.process(None, [answered(262144000, 'yes'), answered(7, 'gray')])
    assert metric.evaluate(2) == {}
    assert json.loads(path.read_text()) == [
        {'question_id': 262144000, 'answer': 'yes'},
        {'question_id': 7, 'answer': 'gray'},
    ]


@pytest.mark.parametrize(
    'ids, file', [((1, 1), 'vqa.json'), ((1, None), 'vqa.json'), ((1,), None)]
)
def test_unusable_results_are_refused(ids, file, tmp_path):
    metric = VQAAccuracy(result_file=file and str(tmp_path / file))
    metric.process(None, [answered(i, 'yes') for i in ids])
    with pytest.raises(UserError):
        metric.evaluate(len(ids))
    assert not list(tmp_path.iterdir())


def test_vocabulary_keeps_first_occurrence_order():
    """And the empty answer, which is one of METER's."""
    answers = ['The red', 'two', 'red', '2', 'blue', 'red!', 'Two', 'the']
    assert build_vocabulary(answers, min_count=3) == ['red', '2']
    assert build_vocabulary(answers, min_count=1) == ['red', '2', 'blue', '']
    assert VQAHead(['red', '2', 'blue', ''], in_channels=2).vocabulary[-1] == ''
    assert build_vocabulary(['b ', 'A', 'b'], min_count=1, normalize=False) == [
        'b',
        'A',
    ]
    with pytest.raises(UserError):
        build_vocabulary(['yes', 'no'])


SOFT_SCORES = [
    (['yes'] * 2 + ['Yes'] + ['no'] * 7, dict(yes=0.6, Yes=0.3, no=1)),
    (['yes'] * 3 + ['no'] * 4 + ['red'] * 3, dict(yes=0.9, no=1, red=0.9)),
    (['2'], {'2': 1}),
    (['2', '3'], {'2': 0.3, '3': 0.3}),
    ([], {}),
]


@pytest.mark.parametrize('answers, expected', SOFT_SCORES)
def test_soft_scores_count_agreeing_annotators(answers, expected):
    assert soft_scores(answers) == expected


BAD_VOCABULARIES = [
    b'["yes", "no", "yes"]',
    *(b'["yes", 2]', b'["yes", "n\\no"]', b'[]', b'{"yes": 0}', pickle.dumps(['yes'])),
]


@pytest.mark.parametrize('content', BAD_VOCABULARIES)
def test_bad_vocabulary_is_refused(content, tmp_path):
    path = tmp_path / 'v.json'
    path.write_bytes(content)
    with pytest.raises(UserError, match='^model.head.vocabulary'):
        read_vocabulary(path, 'model.head.vocabulary')


def test_tool_writes_what_a_head_reads(tmp_path, capsys):
    root = files.write_vqav2(tmp_path / 'coco', {'train2014': 5, 'val2014': 5})
    splits = [
        root / f'vqav2/v2_mscoco_{s}_annotations.json' for s in ('train2014', 'val2014')
    ]
    rows = [
        dict(image='a', question='?', answers=a) for a in ('The cat|cat|cat', 'Dog', '')
    ]
    own, out = files.write_csv(tmp_path / 'q.csv', rows), tmp_path / 'v.json'
    for arguments, expected in (
        # Ten questions a split: each of five answers is the majority of two of them.
        ((*splits, '--min-count', 4), ('no', '2', 'red', 'blue', 'yes')),
        ((own, '--min-count', 1, '--raw'), ('cat', 'Dog')),
    ):
        run_tool_here('vqa/make_vocabulary.py', out, *arguments)
        assert read_vocabulary(out) == expected
    assert '5 answers. 20 of 20 questions (100.0%)' in capsys.readouterr().out


TOTAL = sum(CAPTIONS)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp('captions'))


@pytest.fixture(scope='module')
def exact(folder, tmp_path_factory):
    """Scores of every pair, one pair at a time through the model's own forward."""
    runner = runner_of(folder, tmp_path_factory.mktemp('brute'))
    model = runner.model.eval()
    data = runner.val_dataloader.dataset
    samples = [data[i] for i in range(len(data))]
    texts = []
    for sample in samples:
        texts += sample['data_samples'].text
    scores = torch.zeros(len(samples), len(texts))
    for i, sample in enumerate(samples):
        for t, text in enumerate(texts):
            pair = sample['data_samples'].clone()
            pair.set_metainfo(dict(text=[text]))
            batch = dict(inputs=[sample['inputs']], data_samples=[pair])
            scores[i, t] = model.head.score(tiny.run(model, batch)[:, 0]).item()
    owner = []
    for i, count in enumerate(CAPTIONS):
        owner += [i] * count
    return scores, owner


# With 4 the last captions are two, and then two images at a time.
@pytest.mark.parametrize('size', [1, 4, 9, 1000])
def test_scores_equal_one_pair_at_a_time(size, folder, exact, tmp_path):
    scores, owner = exact
    metrics, (sample,) = validate(folder, tmp_path, pairs_per_batch=size)
    assert sample['scores'].shape == (len(CAPTIONS), TOTAL)
    torch.testing.assert_close(sample['scores'], scores, atol=1e-5, rtol=1e-5)
    assert sample['image_of_caption'].tolist() == owner
    expected = {
        f'retrieval/{k}': v for k, v in recall_at(scores, owner, (1, 2, 3)).items()
    }
    assert expected.items() <= metrics.items()
    assert scores.unique().numel() > 50  # these scores do tell pairs apart


def test_a_process_without_images_of_its_own_scores_none(folder, tmp_path):
    model = runner_of(folder, tmp_path).model
    captions = encode_captions(model, ['a cat', 'two dog runs'], 9)
    assert score_images(model, [], captions, 9).shape == (0, 2)


def test_processes_send_texts_instead_of_tokens(folder, tmp_path, monkeypatch):
    sent = []

    def gather(data):
        sent.append(data)
        return [data]

    monkeypatch.setattr('lm4ve.tasks.vqa.loops.all_gather_object', gather)
    validate(folder, tmp_path)
    images, _ = sent
    assert [len(image.texts) for image in images] == [*CAPTIONS]
    for image in images:
        assert image.tokens is None
        assert image.captions == []


@pytest.mark.slow
def test_two_processes_score_as_one(folder, exact, tmp_path):
    module = 'tests.helpers.vqa.retrieval_run'
    launch = [
        quick_python.folder() / 'python',
        '-m',
        'torch.distributed.run',
        '--nproc_per_node=2',
    ]
    env = environment()
    command = [
        *launch,
        f'--master_port={env["PORT"]}',
        '-m',
        module,
        folder,
        tmp_path / 'out',
    ]
    done = run_command(*command, cwd=ROOT, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f'out.{rank}').read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    found = ranks[0]
    alone, (sample,) = validate(folder, tmp_path / 'alone')
    assert found['owner'] == exact[1] and found['metrics'] == pytest.approx(alone)
    scores = torch.tensor(found['scores'])
    torch.testing.assert_close(scores, sample['scores'], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_encoders_run_once(mode, folder, tmp_path):
    runner = runner_of(folder, tmp_path)
    names = ('encode_images', 'encode_texts', 'score_pairs')
    spies = {name: Mock(wraps=getattr(runner.model, name)) for name in names}
    with patch.multiple(runner.model, **spies):
        getattr(runner, mode)()
    seen = [
        sum(len(call.args[0]) for call in spy.call_args_list) for spy in spies.values()
    ]
    assert seen == [len(CAPTIONS), TOTAL, len(CAPTIONS) * TOTAL]
