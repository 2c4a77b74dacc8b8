"""Several questions an image: grouped, drawn, scored."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.vqa.datasets.question_groups import AskFirstHook, draw_questions, group_by_image
from lm4ve.tasks.vqa.demo.easy_vqa import EasyVQA
from lm4ve.tasks.vqa.models.encoders import ConvStem
from lm4ve.tasks.vqa.models.heads import VQAHead

ENTRIES = [
    dict(img_path=path, text=[f'{path}{n}?'], question_id=f'{path}{n}', gt_answers=[a])
    for path, answers in (('a', 'yes red no box'), ('b', 'red'))
    for n, a in enumerate(answers.split())
]  # fmt: skip


def test_questions_stay_with_their_answers():
    a, b = group_by_image(ENTRIES)
    assert a['text'] == ['a0?', 'a1?', 'a2?', 'a3?'] and b['text'] == ['b0?']
    answer_of = {e['text'][0]: e['gt_answers'] for e in ENTRIES}
    seen = set()
    for _ in range(50):
        drawn = draw_questions(a, 3)
        assert len(set(drawn['text'])) == 3
        assert drawn['gt_answers'] == [answer_of[t] for t in drawn['text']]
        assert [f'{i}?' for i in drawn['question_id']] == drawn['text']
        seen.add(tuple(drawn['text']))
    assert len(seen) > 10
    assert draw_questions(b, 3)['text'] == ['b0?'] * 3
    assert sorted(draw_questions(a, 8)['text']) == sorted(a['text'] * 2)


def test_questions_with_some_answers_can_be_asked_first():
    a, b = group_by_image(ENTRIES)
    assert {*draw_questions(a, 4, {'red', 'box'})['text']} == {'a1?', 'a3?'}
    assert draw_questions(b, 2, {'box'})['text'] == ['b0?'] * 2  # it has no other
    data = EasyVQA(questions_per_image=4, verify=False)
    loader = SimpleNamespace(dataset=data, num_workers=0, persistent_workers=False)
    hook = AskFirstHook(['circle', 'rectangle', 'triangle'], epochs=2)
    answers = []
    for epoch in range(3):
        hook.before_train_epoch(SimpleNamespace(train_dataloader=loader, epoch=epoch))
        infos = [data.get_data_info(i) for i in range(100)]
        answers.append([a for d in infos for (a,) in d['gt_answers']])
    shapes = [np.mean([a in hook.answers for a in some]) for some in answers]
    assert shapes[0] > 0.6 and shapes[1] > 0.6 and shapes[2] < 0.3
    assert len(data) == 4000 and len(data.get_data_info(0)['text']) == 4
    with pytest.raises(UserError, match='persistent_workers'):
        loader.num_workers, loader.persistent_workers = 2, True
        hook.before_train_epoch(SimpleNamespace(train_dataloader=loader, epoch=0))
    with pytest.raises(UserError, match='questions_per_image'):
        loader.dataset = EasyVQA(verify=False)
        hook.before_train_epoch(SimpleNamespace(train_dataloader=loader, epoch=0))


def test_a_test_asks_every_question_once_and_a_wrong_number_is_refused():
    data = EasyVQA('test', questions_per_image=4, verify=False)
    assert len(data) == 9673 and len(data.get_data_info(0)['text']) == 1
    with pytest.raises(UserError, match='questions_per_image=0'):
        EasyVQA(questions_per_image=0)


def test_the_loss_of_several_questions_is_that_of_single_ones():
    torch.manual_seed(0)
    head = VQAHead(['yes', 'no', 'red'], in_channels=8)
    features = torch.randn(2, 3, 8)
    answers = [[['yes'], ['red'], ['no']], [['no'], ['blue'], ['yes'] * 3]]
    several = [VisionLanguageDataSample(metainfo=dict(gt_answers=a)) for a in answers]
    single = [VisionLanguageDataSample(metainfo=dict(gt_answers=a)) for s in answers for a in s]
    loss = head.loss(features, several)['loss_vqa']
    expected = head.loss(features.flatten(0, 1)[:, None], single)['loss_vqa']
    torch.testing.assert_close(loss, expected)
    assert not torch.isclose(loss, head.loss(features.flip(1), several)['loss_vqa'])
    with pytest.raises(UserError, match='gt_answers'):
        head.loss(features, [single[0], several[1]])
    with pytest.raises(UserError, match='questions of a test sample=3'):
        head.predict(features, several)


@pytest.mark.parametrize('side', [2, 8, 16])
def test_the_stem_gives_one_token_a_patch_and_sees_around_it(side):
    stem = ConvStem(3, 24, kernel_size=side, stride=(side, side), bias=True)
    image = torch.zeros(1, 3, 4 * side, 2 * side, requires_grad=True)
    out = stem(image)
    assert out.shape == (1, 24, 4, 2)
    with pytest.raises(UserError, match='power of two'):
        ConvStem(3, 24, kernel_size=side, stride=side // 2)
    with pytest.raises(UserError, match='power of two'):
        ConvStem(3, 24, kernel_size=12, stride=12)
