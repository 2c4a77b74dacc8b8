"""Labels and pixels of an evaluation are those of the training, or it is refused or warned."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import Dataset

from lm4ve.errors import UserError
from lm4ve.runner import same_data
from tests.helpers.runner import toy

CLASSES = ('cat', 'dog', 'owl')


class Samples(Dataset):
    """Two samples of fields that are given, and the names of their classes."""

    def __init__(self, classes=None, **fields):
        self.metainfo = {}
        if classes:
            self.metainfo['classes'] = classes
        self.fields = fields

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.ones(4), data_samples=BaseDataElement(**self.fields))


class Classifier(BaseModel):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.head.index = dict(yes=0, no=1)

    def forward(self, inputs, data_samples, mode='tensor'):
        scores = self.head(torch.stack(inputs))
        if mode == 'loss':
            return dict(loss=scores.square().mean())
        for sample, row in zip(data_samples, scores, strict=True):
            sample.pred_score = row
        return data_samples


def runner_of(folder, trained=None, tested=None, score=0.0, **changes):
    """Return a runner that trains on some samples and tests on others."""
    loader = dict(
        dataset=tested,
        batch_size=2,
        collate_fn=dict(type='pseudo_collate'),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    hooks = dict(
        plain=dict(type='lm4ve.PlainCheckpointHook'),
        whole=dict(type='lm4ve.WholeCheckpointHook'),
        checkpoint=toy.CHECKPOINT,
    )
    return toy.make_runner(
        folder,
        Classifier(),
        trained,
        batch_size=2,
        test_dataloader=loader,
        test_cfg={},
        test_evaluator=toy.Score([score]),
        default_hooks=hooks,
        **changes,
    )


TESTED = [
    (CLASSES, False),
    (CLASSES[:2], False),  # the last one is not tested
    (None, False),
    (('cat', 'owl'), True),
    (('dog', 'owl', 'zcat'), True),
    ((*CLASSES, 'yak'), True),
]


@pytest.mark.parametrize('loads', [True, False])
@pytest.mark.parametrize('tested, shifted', TESTED)
def test_classes_of_other_labels_are_refused(tested, shifted, loads, tmp_path):
    runner = runner_of(
        tmp_path, Samples(CLASSES), Samples(tested, gt_label=torch.tensor([0]))
    )
    runner.train()
    if loads:
        start = dict(load_from=str(tmp_path / 'iter_1.pth'))
        runner = runner_of(tmp_path, Samples(), Samples(tested), **start)
    if shifted:
        with pytest.raises(UserError, match='label . is'):
            runner.test()
    else:
        runner.test()


def test_a_resumed_training_keeps_its_classes(tmp_path):
    runner_of(tmp_path, Samples(CLASSES), Samples()).train()
    more = dict(resume=True, train_cfg=dict(by_epoch=True, max_epochs=2))
    with pytest.raises(UserError, match="label 0 is 'dog'"):
        runner_of(tmp_path, Samples(CLASSES[1:]), Samples(), **more).train()


TRUTHS = [
    (dict(gt_label=torch.tensor([0, 2])), 0.0, None),
    (dict(gt_label=torch.tensor([0, 3])), 0.0, 'gt_label=3'),  # counted from 1
    (dict(gt_label=torch.tensor([-1])), 0.0, 'gt_label=-1'),
    (dict(gt_answers=['yes', 'ja']), 0.0, None),
    (dict(gt_answers=['Yes.']), 50.0, None),  # metrics may normalize
    (dict(gt_answers=['ja', 'nein']), 0.0, 'vocabulary'),
]


@pytest.mark.parametrize('fields, score, refused', TRUTHS)
def test_truth_that_the_model_cannot_give_is_refused(fields, score, refused, tmp_path):
    runner = runner_of(tmp_path, Samples(), Samples(**fields), score)
    if refused:
        with pytest.raises(UserError, match=refused):
            runner.test()
    else:
        assert runner.test()


def test_other_versions_of_pixel_libraries_are_warned_of(tmp_path, monkeypatch, capsys):
    runner_of(tmp_path, Samples(), Samples()).train()
    checkpoint = torch.load(tmp_path / 'iter_1.pth', weights_only=True)
    stored = checkpoint['meta'][same_data.VERSIONS]
    assert stored == same_data.pixel_versions() and 'pillow' in stored
    monkeypatch.setattr(
        same_data, 'version', lambda name: '0.1' if name == 'pillow' else '1'
    )
    assert same_data.changed_versions(dict(pillow='0.1', other='3')) == ''
    assert 'pillow 12 (here 0.1)' in same_data.changed_versions(dict(pillow='12'))
    start = dict(load_from=str(tmp_path / 'iter_1.pth'), log_level='WARNING')
    runner_of(tmp_path, Samples(), Samples(), **start).test()
    assert f'pillow {stored["pillow"]} (here 0.1)' in capsys.readouterr().out
