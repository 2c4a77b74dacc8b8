"""The report of a study: its answer, its tables, its plot and its page."""

import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mmengine.logging import MMLogger
from PIL import Image
from scipy import stats
from sklearn.metrics import confusion_matrix, recall_score

from lm4ve.data.image_files import DamagedPictureError
from lm4ve.draw.figures import to_image
from lm4ve.errors import UserError
from lm4ve.study.heads.contents import report_of
from lm4ve.study.heads.examples import MOST, choose_examples, has_pictures
from lm4ve.study.heads.head import ProfiledHead
from lm4ve.study.heads.heard_warnings import hear_warnings
from lm4ve.study.heads.mistakes import class_recalls, list_confusions, only_right_in
from lm4ve.study.heads.stored import (
    StoredStudy,
    read_study,
    with_earlier,
    write_study,
)
from lm4ve.study.heads.study import StudyResults, collect
from lm4ve.study.pictures.data import ProbeData, read_data
from lm4ve.study.pictures.items import DatasetItem
from lm4ve.study.plot import draw_study
from lm4ve.study.report import claim_folder, write_report
from lm4ve.study.tokens.features import Features
from tests.helpers.pictures import break_tables
from tests.helpers.tools import parse_try

command = import_module('lm4ve.commands.try')  # a statement cannot name it
TEST = 120
#: The heads of a study, with the longest names that the command gives.
HEADS = (
    'linear',
    'attentive',
    'frozen',
    'random',
    'formal (a-language-of-$brackets$-and-copies)',
    'attention (parameters)',
    'attention (operations)',
    'mlp (parameters)',
    'mlp (operations)',
)


@pytest.fixture
def data(tmp_path):
    """Pictures of noise in four classes with names that are hard to print."""
    rng = np.random.default_rng(0)
    items = []
    for i in range(TEST + 20):
        path = tmp_path / f'pictures/{i}.png'
        path.parent.mkdir(exist_ok=True)
        noise = rng.integers(256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        items.append(path)
    return ProbeData(
        name='photos/<i>',
        labels=np.arange(len(items)) % 4,
        splits=dict(
            train=np.arange(10),
            val=np.arange(10, 20),
            test=np.arange(20, len(items)),
        ),
        classes=('<b>cat</b>', '$a_1$', '漢字', 'x' * 150),
        fingerprint='f00d',
        items=items,
    )


def predict(data, accuracy: float, seeds: int = 4, seed: int = 0) -> np.ndarray:
    """Draw predictions ``[seeds, test pictures]`` of a given accuracy."""
    rng = np.random.default_rng(seed)
    labels = data.labels[data.splits['test']]
    is_right = rng.random((seeds, len(labels))) < accuracy
    others = (labels + rng.integers(1, 4, (seeds, len(labels)))) % 4
    return np.where(is_right, labels, others)


def make_study(
    data, folder, predicted, rule='', warnings=()
) -> tuple[StoredStudy, StudyResults]:
    """A study whose trainings gave these predictions."""
    pairs = [('frozen', name) for name in predicted if name != 'frozen']
    words = ['e', 'd', '--block', '/models/llama-7b', '--steps', '20']
    settings = command.settings_of(parse_try(words))
    block = dict(checkpoint='/models/llama-7b', layers=(-1,))
    heads = {}
    for name in predicted:
        family, _, _ = name.partition(' ')
        heads[name] = ProfiledHead(name, family, f'the {name}', embed_dims=8)
        if family == 'frozen':
            heads[name] = replace(heads[name], block=block)
    shape = (len(data), 2, 4)
    np.zeros(shape, np.float16).tofile(folder / 'tokens.f16')
    features = Features(shape, data, 'f00d', folder, 'package:lite0')
    labels = data.labels[data.splits['val']]
    wrong = (labels + 1) % 4
    results = collect(
        data=data,
        tuned={name: {1e-3: wrong, 3e-3: labels, 1e-2: wrong} for name in heads},
        kept=dict.fromkeys(heads, [3e-3]),
        drawn=[],
        values={name: [3e-3] * len(values) for name, values in predicted.items()},
        predicted=predicted,
        seconds=dict.fromkeys(heads, 1.0),
        pairs=pairs,
    )
    study = StoredStudy(
        features, settings, heads, results, rule, 'lm4ve try', list(warnings)
    )
    return study, results


def write(data, folder, predicted):
    """Write a report; return its page."""
    with hear_warnings(MMLogger.get_instance('test-report')) as warnings:
        for _ in range(2):
            MMLogger.get_instance('test-report').warning('left out: <x.heic>')
    study, _ = make_study(data, folder, predicted, '<the rule>', warnings)
    write_report(report_of(study, data), folder)
    return (folder / 'report.html').read_text()


def predictions_of_all(data, seeds=4):
    """Predictions of all heads, of like accuracy."""
    predicted = {}
    for seed, name in enumerate(HEADS):
        predicted[name] = predict(data, 0.8, seeds, seed)
    return predicted


def test_the_page_gives_the_answer_first_and_the_statistics_last(data, tmp_path):
    page = write(data, tmp_path, predictions_of_all(data))
    parts = ['class="answer"', '<td class="text">linear', 'alt="Scores', '>Classes<']
    parts += ['>Confusions<', '>Pictures that only', '>Statistics<', '&lt;the rule&gt;']
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    answer = (tmp_path / 'sentence.txt').read_text().splitlines()[0]
    words = 'whether the last layer of llama-7b helps lite0 on <i> '
    assert answer.startswith('Open: ') and words in answer


def test_the_page_repeats_each_warning_once(data, tmp_path):
    page = write(data, tmp_path, predictions_of_all(data))
    assert page.count('left out: &lt;x.heic&gt;') == 1


def test_names_of_classes_are_shown_as_they_are(data, tmp_path):
    page = write(data, tmp_path, predictions_of_all(data))
    assert '&lt;b&gt;cat&lt;/b&gt;' in page and '漢字' in page and '$a_1$' in page
    for name in ('<b>cat</b>', '<i>', '<the rule>'):
        assert name not in page
    classes = pd.read_csv(tmp_path / 'classes.csv')
    assert sorted(classes['class']) == sorted(data.classes)
    assert classes['test'].sum() == TEST


@pytest.mark.parametrize('columns', [80, 120])
def test_the_table_fits_a_terminal(columns, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('COLUMNS', str(columns))
    monkeypatch.setenv('FORCE_COLOR', '1')  # rich takes the output for a terminal
    write(data, tmp_path, predictions_of_all(data))
    plain = re.sub(r'\x1b\[[0-9;]*m', '', capsys.readouterr().out)
    table = [line for line in plain.splitlines() if line.startswith(tuple('┏┃┡│└'))]
    assert len(table) >= len(HEADS) + 4
    assert max(len(line) for line in table) <= columns
    means = [line for line in table if re.search(r'\d\.\d ± \d', line)]
    assert len(means) == len(HEADS)  # no number is broken into lines
    cells = [line.split('│')[1] for line in table if line.startswith('│')]
    letters = ''.join(cells).replace(' ', '')
    for name in HEADS:
        assert name.replace(' ', '') in letters


@pytest.mark.parametrize('variants', ['frozen', 'linear random', 'frozen formal'])
def test_a_study_without_a_comparison_is_refused_first(variants):
    words = ['e', 'd', '--block', 'x', '--variants', *variants.split()]
    with pytest.raises(UserError, match="needs 'frozen', and one to compare it with"):
        parse_try(words)


@pytest.mark.parametrize('accuracy', [0.0, 0.02, 0.98, 1.0])
def test_the_plot_has_all_rows_inside_and_nothing_beyond_100(accuracy, data, tmp_path):
    predicted = {}
    for seed, name in enumerate(HEADS):
        predicted[name] = predict(data, accuracy, 2, seed)
    study, _ = make_study(data, tmp_path, predicted)
    report = report_of(study, None)
    figure = draw_study(
        report.names,
        report.reference,
        report.scores,
        report.comparisons,
        report.metric,
        1.0,
        '$x',
    )
    to_image(figure)  # lays it out
    left, right = figure.axes
    for line in left.lines:
        assert 0 <= np.nanmin(line.get_xdata()) <= np.nanmax(line.get_xdata()) <= 100
        low, high = sorted(left.get_xlim())
        assert low < np.nanmin(line.get_xdata()) and np.nanmax(line.get_xdata()) < high
    bottom, top = left.get_ylim()
    assert top < 0 and bottom > len(HEADS) - 1
    (legend,) = figure.legends
    for axes in (left, right):
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_a_seed_without_scores_is_named(data, tmp_path):
    predicted = predictions_of_all(data)
    predicted['random'][2] = -1
    page = write(data, tmp_path, predicted)
    assert 'count as wrong, in trainings of &#39;random&#39;.' in page


def test_the_strongest_baseline_comes_first_in_the_table_and_in_words(data, tmp_path):
    shares = dict(linear=0.6, knn=0.4, frozen=0.9, logreg=0.7, random=0.95)
    predicted = {name: predict(data, share) for name, share in shares.items()}
    predicted['logreg'] = predicted['logreg'][:1]  # its trainings are all the same
    page = write(data, tmp_path, predicted)
    table = (tmp_path / 'table.md').read_text()
    rows = re.findall(r'^\| (\w+) \| (\S+ ± \S+) ', table, flags=re.M)
    expected = ['logreg', 'linear', 'knn', 'frozen', 'random']
    assert [name for name, _ in rows] == expected
    _, details = (tmp_path / 'sentence.txt').read_text().splitlines()
    assert details.startswith('On this data the frozen is better than the logreg by ')
    assert details.index('the linear') < details.index('the knn')
    assert 'Only <code>logreg</code> is right' in page


@pytest.mark.parametrize('size', [1, 4])
def test_what_is_drawn_and_written_counts_groups_of_pictures(size, data, tmp_path):
    data = replace(data, groups=np.arange(len(data)) // size)
    predicted = {name: predict(data, 0.8) for name in ('linear', 'frozen')}
    study, results = make_study(data, tmp_path, predicted)
    report = report_of(study, None)
    write_report(report, tmp_path)
    points = 100 * results.correct['frozen'].mean(0)
    of_group = points.reshape(-1, size).mean(1)
    over_groups = stats.ttest_1samp(of_group, 0).confidence_interval(0.95)
    seeds = results.accuracies['frozen']
    over_seeds = stats.ttest_1samp(seeds, 0).confidence_interval(0.95)
    halves = [(one.high - one.low) / 2 for one in (over_groups, over_seeds)]
    score = report.scores['frozen']
    assert score.half == pytest.approx(np.hypot(*halves))
    cell = f'{score.mean:.1f} ± {score.half:.1f}'
    assert f'| frozen | {cell} |' in (tmp_path / 'table.md').read_text()
    figure = draw_study(
        report.names, 'frozen', report.scores, [], report.metric, 1.0, ''
    )
    drawn = [line.get_xdata() for line in figure.axes[0].lines]
    assert any(np.array_equal(x, (score.low, score.high)) for x in drawn)


def test_more_seeds_are_a_second_look_and_the_plan_stays(data, tmp_path):
    planned = {name: predict(data, 0.8) for name in ('linear', 'frozen', 'random')}
    fewer = {name: predict(data, 0.8, seeds=2) for name in ('linear', 'frozen')}
    sentences = []
    for predicted, seeds in ((planned, 4), (fewer, 2), (fewer, 2)):
        study, _ = make_study(data, tmp_path, predicted)
        study = replace(study, settings=replace(study.settings, seeds=seeds))
        write_study(with_earlier(study, tmp_path), data, tmp_path)
        stored, _ = read_study(tmp_path)
        write_report(report_of(stored, None), tmp_path)
        sentences.append((tmp_path / 'sentence.txt').read_text().splitlines())
    first, second, again = sentences
    assert len(first) == 2
    look = f'A second look: the first, of 4 seeds, said: {first[0]}'
    assert second[-1] == again[-1] == look
    comparisons = pd.read_csv(tmp_path / 'comparisons.csv')
    assert comparisons['against'].tolist() == ['linear', 'random']
    assert comparisons['reason'][1] == 'no scores'
    assert 'Planned and without scores: ' in (tmp_path / 'report.html').read_text()


def test_perfect_heads_confuse_nothing(data, tmp_path):
    predicted = {name: predict(data, 1.0) for name in HEADS}
    page = write(data, tmp_path, predicted)
    assert 'takes no test picture of a class for another' in page
    assert 'Only <code>frozen</code> is right: 0 of 120' in page


def test_mistakes_are_scikit_learns(data):
    labels = data.labels[data.splits['test']]
    predicted = predict(data, 0.6)
    recalls = [recall_score(labels, one, average=None) for one in predicted]
    assert class_recalls(labels, predicted, 4) == pytest.approx(
        100 * np.mean(recalls, 0)
    )
    matrix = sum(confusion_matrix(labels, one) for one in predicted) / len(predicted)
    confusions = list_confusions(labels, predicted)
    for one in confusions:
        assert one.pictures == matrix[one.label, one.predicted]
    assert sum(one.pictures for one in confusions) == matrix.sum() - matrix.trace()
    counts = [one.pictures for one in confusions]
    assert counts == sorted(counts, reverse=True)
    # Scores that are not finite are no class.
    predicted[0] = -1
    assert all(one.predicted >= 0 for one in list_confusions(labels, predicted))
    assert np.isnan(class_recalls(labels, predicted, 5)[4])


def test_pictures_that_one_alone_gets_right_come_with_the_largest_gap_first():
    labels = np.zeros(5, int)
    first = np.array([[0, 0, 0, 1, 0], [0, 0, 0, 1, 1]])  # the last: right in half
    other = np.array([[0, 1, 1, 0, 1], [0, 1, 1, 0, 1], [0, 0, 1, 0, 1]])
    assert only_right_in(labels, first, other).tolist() == [2, 1]
    assert only_right_in(labels, other, first).tolist() == [3]


def test_a_dozen_pictures_are_shown_with_what_heads_say(data, tmp_path):
    labels = data.labels[data.splits['test']]
    frozen = np.stack([labels] * 4)
    linear = frozen.copy()
    linear[:, :30] = (labels[:30] + 1) % 4
    frozen[:, 30:33] = -1
    _, results = make_study(data, tmp_path, dict(linear=linear, frozen=frozen))
    data.items[20].unlink()
    only_frozen, only_linear = choose_examples(data, results, ('frozen', 'linear'))
    assert (only_frozen.count, only_linear.count) == (30, 3)
    assert len(only_linear.shown) == 3
    assert len(only_frozen.shown) == MOST - 3
    lost, shown, *_ = only_frozen.shown
    assert lost.source == '' and lost.path == str(data.items[20])
    assert shown.source.startswith('data:image/jpeg;base64,')
    assert shown.label == data.classes[1]
    right, wrong = data.classes[1], data.classes[2]
    assert shown.predictions == (
        f'frozen: {right} (4 of 4 seeds)',
        f'linear: {wrong} (4 of 4 seeds)',
    )
    assert (
        only_linear.shown[0].predictions[0] == 'frozen: no finite score (4 of 4 seeds)'
    )


def test_examples_leave_out_a_test_picture_that_only_decoding_finds_broken(tmp_path):
    folder = tmp_path / 'photos'
    for label in 'abcd':
        (folder / label).mkdir(parents=True)
        for i in range(10):
            noise = np.random.default_rng(i).integers(256, size=(8, 8, 3))
            picture = Image.fromarray(noise.astype(np.uint8))
            picture.save(folder / f'{label}/{i}.jpg')
    data = read_data(str(folder))
    index = data.splits['test'][1]
    break_tables(data.items[index])
    with pytest.raises(DamagedPictureError):
        data[index]

    kept = data.without_damaged(np.array([index]))
    labels = kept.labels[kept.splits['test']]
    predicted = dict(linear=3 - labels[None], frozen=labels[None])
    _, results = make_study(kept, tmp_path, predicted)
    only_frozen, only_linear = choose_examples(kept, results, ('frozen', 'linear'))
    assert (only_frozen.count, only_linear.count) == (7, 0)
    shown = [example.path for example in only_frozen.shown]
    assert shown == [str(kept.items[i]) for i in kept.splits['test']]
    for example in only_frozen.shown:
        assert example.source.startswith('data:image/jpeg;base64,')
        assert example.label == Path(example.path).parent.name


def test_a_path_that_is_no_text_is_shown(data, tmp_path):
    strange = tmp_path / 'pictures/\udce9.png'
    data.items[20].rename(strange)
    data.items[20] = strange
    labels = data.labels[data.splits['test']]
    predicted = {name: predict(data, 0.0) for name in HEADS}
    predicted['frozen'][:, 0] = labels[0]
    page = write(data, tmp_path, predicted)
    assert 'pictures/\ufffd.png' in page


def test_a_name_that_no_report_can_hold_is_refused_first(tmp_path):
    with pytest.raises(
        UserError, match=r"name of the data, 'caf\\udce9', is not in UTF-8"
    ):
        claim_folder(tmp_path, dict(encoder='x', data='caf\udce9'))


class InMemory:
    """A data set whose samples have one field."""

    def __init__(self, field):
        self.field = field

    def get_data_info(self, index):
        return {self.field: np.zeros((4, 4), np.uint8)}


@pytest.mark.parametrize('field, expected', [('img', True), ('points', False)])
def test_clouds_are_no_pictures(field, expected, data):
    items = [DatasetItem(InMemory(field), index) for index in range(len(data))]
    assert has_pictures(replace(data, items=items)) is expected
