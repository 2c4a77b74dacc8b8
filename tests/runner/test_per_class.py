"""A test prints and draws the results of each class, and writes predictions as a CSV file."""

import csv
import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel

from lm4ve.errors import UserError
from lm4ve.runner.console import WIDTH
from lm4ve.runner.per_class import (
    class_frame,
    class_table,
    find_lists,
    find_matrix,
    matrix_table,
)
from lm4ve.runner.prediction_table import PredictionTable, require_one_label
from tests.helpers.image import images
from tests.helpers.tools import run_tool_here

pytest.importorskip('mmpretrain')

CLASSES = ['ant', 'bee', 'cat']
#: A classifier of three classes of pictures that is not trained.
CONFIG = """\
_base_ = 'lm4ve::lm4ve/vit-demo_none_digits.py'

model = dict(head=dict(num_classes=3))
test_dataloader = dict(
    batch_size=4,
    dataset=dict(
        _delete_=True,
        type='lm4ve.CheckedImageFolder',
        data_root='{root}',
        metainfo=dict(classes={classes}),
        test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), *_base_.test_pipeline]))
test_evaluator = [dict(type='Accuracy'), dict(type='ConfusionMatrix')]
"""


@pytest.fixture
def tested(tmp_path):
    """Return the arguments of ``lm4ve test`` for an untrained classifier, but for flags."""
    from mmengine.config import Config
    from mmpretrain.registry import MODELS

    images.fill(tmp_path / 'photos', CLASSES, 4)
    config = tmp_path / 'own.py'
    config.write_text(CONFIG.format(root=tmp_path / 'photos', classes=CLASSES))
    model = MODELS.build(Config.fromfile(config).model)
    checkpoint = tmp_path / 'untrained.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return config, checkpoint, '--work-dir', tmp_path / 'runs'


def rows_of(text: str) -> list[list[str]]:
    """Return the words of a table's rows, below its title and its head."""
    return [line.split() for line in text.splitlines()[2:]]


def tables_on(console: str) -> list[list[list[str]]]:
    """Return the rows of the tables of classes and of the matrix on the console."""
    _, classes = console.split('each class\n')
    classes, matrix = classes.split('confusion matrix')
    matrix, _ = matrix.split('\npicture')
    return [rows_of(f'\n{classes.strip()}'), rows_of(matrix)]


def test_test_prints_each_class_and_writes_every_prediction(tested, tmp_path, capsys):
    out = tmp_path / 'predictions.csv'
    run_tool_here('test.py', *tested, '--out', out)
    text = capsys.readouterr().out
    with open(out, newline='') as file:
        predictions = list(csv.DictReader(file))

    paths = sorted(str(path) for path in (tmp_path / 'photos').glob('*/*'))
    assert sorted(row['path'] for row in predictions) == paths
    counts = np.zeros((3, 3), int)
    for row in predictions:
        assert row['label'] in row['path']
        assert 1 / 3 <= float(row['score']) <= 1
        counts[CLASSES.index(row['label']), CLASSES.index(row['prediction'])] += 1

    classes, confusions = tables_on(text)
    assert [row[0] for row in classes] == CLASSES
    assert [float(row[2]) for row in classes] == [25.0 * counts[i, i] for i in range(3)]
    shown = [
        [0 if cell == '.' else int(cell) for cell in row[2:]] for row in confusions
    ]
    assert shown == counts.tolist()
    (picture,) = (tmp_path / 'runs').glob('*/confusion_matrix.png')
    assert f'picture      {picture}' in text


def test_metrics_with_a_matrix_are_written_as_json(tested, tmp_path):
    out = tmp_path / 'metrics.json'
    run_tool_here('test.py', *tested, '--out', out, '--out-item', 'metrics')
    metrics = json.loads(out.read_text())
    assert np.sum(metrics['confusion_matrix/result']) == 12


def test_recall_and_precision_are_those_of_the_hosts_metric():
    from mmpretrain.evaluation import ConfusionMatrix, SingleLabelMetric

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (200,), generator=generator)
    predictions = torch.randint(5, (200,), generator=generator)
    matrix = ConfusionMatrix.calculate(predictions, labels, num_classes=5)
    frame = class_frame({}, find_matrix({'confusion_matrix/result': matrix}))
    precision, recall, _, support = SingleLabelMetric.calculate(
        predictions, labels, average=None, num_classes=5
    )
    # The host computes in float32.
    np.testing.assert_allclose(frame['recall'], recall, rtol=1e-6)
    np.testing.assert_allclose(frame['precision'], precision, rtol=1e-6)
    assert frame['samples'].tolist() == support.tolist()


def test_lists_of_a_metric_become_columns():
    metrics = {'single-label/f1-score_classwise': [50.0, 25.0], 'accuracy/top1': 40.0}
    frame = class_frame(find_lists(metrics), None, ['ant', 'bee'])
    assert rows_of(class_table(frame)) == [['ant', '50.00'], ['bee', '25.00']]


@pytest.mark.parametrize('classes', [[], ['ant', 'bee'], list('abcd')])
def test_classes_are_numbered_where_the_names_are_not_as_many(classes):
    matrix = np.array([[2, 1, 0], [0, 1, 0], [0, 0, 4]])
    lists = dict(f1=[50.0, 25.0, 10.0])
    assert class_frame(lists, matrix, classes).index.tolist() == ['0', '1', '2']


def test_lists_of_other_lengths_end_with_nothing():
    frame = class_frame(dict(a=[1.0, 2.0, 3.0], b=[4.0]), np.eye(2, dtype=int))
    rows = rows_of(class_table(frame))
    assert rows[1] == ['1', '1', '100.00', '100.00', '2.00', '-']
    assert rows[2] == ['2', '<NA>', '-', '-', '3.00', '-']


def test_a_matrix_of_other_numbers_than_counts_is_no_confusion_matrix():
    assert find_matrix(dict(correlation=np.eye(3))) is None


def test_lists_with_one_name_are_told_apart_by_their_metrics():
    metrics = {
        'a/f1-score_classwise': [1.0, 2.0],
        'b/f1-score_classwise': [3.0, 4.0],
        'x/b/top1_classwise': [5.0, 6.0],
        'y/b/top1_classwise': [7.0, 8.0],
        'b/recall_classwise': [9.0, 10.0],
        'f1_classwise': [11.0, 12.0],
        'a/f1_classwise': [13.0, 14.0],
    }
    lists = find_lists(metrics)
    assert lists == {
        'a/f1-score': [1.0, 2.0],
        'b/f1-score': [3.0, 4.0],
        'x/b/top1': [5.0, 6.0],
        'y/b/top1': [7.0, 8.0],
        'recall': [9.0, 10.0],
        'f1': [11.0, 12.0],
        'a/f1': [13.0, 14.0],
    }
    # The matrix gives recall in the same unit.
    with_matrix = class_frame(lists, np.eye(2, dtype=int))
    assert with_matrix['recall'].tolist() == [100.0, 100.0]
    assert len(with_matrix.columns) == len(lists) + 2


def test_a_class_without_samples_has_no_recall():
    frame = class_frame({}, np.array([[2, 1], [0, 0]]), ['ant', 'bee'])
    rows = rows_of(class_table(frame))
    assert rows == [['ant', '3', '66.67', '100.00'], ['bee', '0', '-', '0.00']]


@pytest.mark.parametrize('count', [2, 12, 20, 60, 300])
def test_tables_of_any_number_of_classes_fit_the_console(count):
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 1000, (count, count))
    names = [f'a class with a rather long name, {i}' for i in range(count)]
    tables = [
        matrix_table(names, matrix),
        class_table(class_frame({}, matrix, names)),
    ]
    for table in tables:
        lines = table.splitlines()
        assert max(len(line) for line in lines) <= WIDTH
        assert len(lines) < 70


def test_of_many_classes_the_weakest_and_the_largest_confusions_are_shown():
    matrix = np.diag([10] * 200)
    matrix[7, 9] = 5
    matrix[3, 1] = 30
    names = [f'n{i}' for i in range(200)]
    weakest = rows_of(class_table(class_frame({}, matrix, names)))
    assert [row[0] for row in weakest[:2]] == ['n3', 'n7']
    confusions = rows_of(matrix_table(names, matrix))
    assert confusions == [['n3', 'n1', '30', '75.0'], ['n7', 'n9', '5', '33.3']]


MULTI_LABEL = """\
_base_ = 'own.py'
model = dict(head=dict(
    _delete_=True, type='MultiLabelLinearClsHead', num_classes=3, in_channels=64, topk=1))
test_dataloader = dict(dataset=dict(
    _delete_=True, type='MultiLabelDataset', ann_file='{labels}', test_mode=True,
    pipeline=[dict(type='LoadImageFromFile'), *_base_.test_pipeline]))
test_evaluator = [dict(_delete_=True, type='MultiLabelMetric', topk=1)]
"""


def test_a_table_of_samples_with_several_labels_is_refused_first(
    tested, tmp_path, monkeypatch
):
    paths = sorted(str(path) for path in (tmp_path / 'photos').glob('*/*'))
    entries = [dict(img_path=path, gt_label=[0]) for path in paths]
    entries[-1]['gt_label'] = [0, 2]
    labels = dict(metainfo=dict(classes=CLASSES), data_list=entries)
    (tmp_path / 'labels.json').write_text(json.dumps(labels))
    config = tmp_path / 'several.py'
    config.write_text(MULTI_LABEL.format(labels=tmp_path / 'labels.json'))
    _, checkpoint, *flags = tested
    out = tmp_path / 'predictions.csv'

    def test(self):
        raise AssertionError('the test has begun')

    monkeypatch.setattr('mmengine.runner.TestLoop.run', test)
    with pytest.raises(UserError, match='samples of MultiLabelDataset have several'):
        run_tool_here(
            'test.py', config, checkpoint, *flags, '--out', out, '--allow-partial'
        )


@pytest.mark.parametrize(
    'labels, has_several',
    [
        (dict(gt_label=3), False),
        (dict(gt_label=np.array(3)), False),
        (dict(gt_label=[3]), True),
        (dict(gt_score=np.array([0, 1])), True),
        (dict(), False),
    ],
    ids=str,
)
def test_the_first_sample_shows_whether_a_table_has_room(labels, has_several):
    class Samples(list):
        get_data_info = list.__getitem__

    samples = Samples([dict(img_path='a.png', **labels)])
    raises = pytest.raises(UserError, match="'p.csv'.* Samples have several labels")
    with raises if has_several else nullcontext():
        require_one_label(samples, 'p.csv')


def test_a_path_that_is_no_text_is_written(tmp_path):
    path = tmp_path / 'predictions.csv'
    table = PredictionTable(path)
    for name in ('caf\udce9.png', 'café.png', 'b.png'):
        table.process(None, [dict(img_path=name, pred_label=torch.tensor([1]))])
    table.evaluate(3)
    with open(path, newline='', encoding='utf-8') as file:
        names = [row['path'] for row in csv.DictReader(file)]
    assert names == [r'caf\udce9.png', 'café.png', 'b.png']


class Unused(BaseModel):
    """Stands where the views' model stands, which merging does not call."""

    def forward(self, inputs):
        return inputs


@pytest.mark.parametrize(
    'merge', ['lm4ve.AverageViews', 'mmpretrain.AverageClsScoreTTA']
)
def test_averaged_views_give_the_label_of_their_average(merge, tmp_path):
    from mmengine.registry import MODELS
    from mmpretrain.structures import DataSample

    views = []
    for scores in ([0.6, 0.4], [0.1, 0.9]):
        scores = torch.tensor(scores)
        sample = DataSample(metainfo=dict(img_path='a.png'))
        views.append(sample.set_pred_score(scores).set_pred_label(scores.argmax(-1)))
    model = MODELS.build(dict(type=merge, module=Unused()))
    (merged,) = model.merge_preds([views])
    path = tmp_path / 'predictions.csv'
    table = PredictionTable(path)
    table.process(None, [merged.to_dict()])
    table.evaluate(1)
    with open(path, newline='', encoding='utf-8') as file:
        (row,) = csv.DictReader(file)
    assert row['prediction'] == '1' and float(row['score']) == pytest.approx(0.65)
    if merge == 'lm4ve.AverageViews':
        assert merged.pred_label.item() == 1


def test_a_sample_with_several_predicted_labels_is_refused(tmp_path):
    table = PredictionTable(tmp_path / 'predictions.csv')
    sample = dict(img_path='a.png', pred_label=torch.tensor([0, 2]))
    with pytest.raises(UserError, match='predicts no label, or several.*[.]pkl'):
        table.process(None, [sample])


def test_samples_without_a_path_are_refused(tmp_path):
    table = PredictionTable(tmp_path / 'predictions.csv')
    sample = dict(pred_label=torch.tensor([1]), pred_score=torch.tensor([0.2, 0.8]))
    with pytest.raises(UserError, match='the samples have no path.*img_path'):
        table.process(None, [sample])
    with pytest.raises(UserError, match='predicts no label.*[.]pkl'):
        table.process(None, [dict(img_path='a.png')])
