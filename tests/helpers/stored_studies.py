"""Studies as files, with scores made here: what a report is written from, without a training."""

from importlib import import_module
from pathlib import Path

import numpy as np

from lm4ve.files import write_csv, write_json
from lm4ve.study.heads.head import ProfiledHead
from lm4ve.study.heads.settings import StudySettings
from lm4ve.study.heads.stored import StoredStudy, write_study
from lm4ve.study.heads.study import Drawn, collect
from lm4ve.study.pictures.data import ProbeData
from lm4ve.study.report_files import pack
from lm4ve.study.tokens.features import Features
from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_lm4ve

try_command = import_module('lm4ve.commands.try')  # a statement cannot name it
BLOCK = dict(checkpoint='llm', layers=[-1])
CLASSES = ('a', 'b', 'c')
#: Head -> its family; logreg and knn have a single training.
FAMILIES = {
    'logreg': 'logreg',
    'knn': 'knn',
    'frozen': 'frozen',
    'random': 'random',
    'formal (dyck)': 'formal',
    'attention (parameters)': 'attention',
}


def store_heads(
    folder: Path, shares: dict[str, float], pictures: int, group: int, seeds: int = 4
) -> None:
    """Write a study of heads with its report.

    Args:
        folder (Path): The folder.
        shares (dict[str, float]): Head -> the share of pictures that it gets right.
        pictures (int): Of the test.
        group (int): So many pictures are a group.
        seeds (int): How many seeds there are.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(30 + pictures) % len(CLASSES)
    place = np.arange(len(labels))
    data = ProbeData(
        name='sets/photos/pictures.csv',
        labels=labels,
        splits=dict(train=place[:15], val=place[15:30], test=place[30:]),
        classes=CLASSES,
        fingerprint='',
        items=(),
        groups=place // group,
    )
    test, val = labels[30:], labels[15:30]
    # What is hard for one head is so for the others.
    hard = rng.uniform(size=pictures)
    predicted = {}
    for name, share in shares.items():
        rows = 1 if name in ('logreg', 'knn') else seeds
        noise = rng.normal(scale=0.02, size=(rows, pictures))
        wrong = hard + noise > share
        predicted[name] = np.where(wrong, (test + 1) % len(CLASSES), test)
    rates = [0.001, 0.003]
    heads = {}
    for name in shares:
        is_frozen = name == 'frozen'
        heads[name] = ProfiledHead(
            name, FAMILIES[name], name, BLOCK if is_frozen else {}, embed_dims=16
        )
    results = collect(
        data=data,
        tuned={name: dict.fromkeys(rates, val) for name in shares},
        kept=dict.fromkeys(shares, rates),
        drawn=[Drawn('frozen', rate, 0, 90.0) for rate in rates],
        values={
            name: [rates[seed % 2] for seed in range(len(own))]
            for name, own in predicted.items()
        },
        predicted=predicted,
        seconds=dict.fromkeys(shares, 1.0),
        pairs=[('frozen', name) for name in shares if name != 'frozen'],
    )
    settings = StudySettings(
        block='llm',
        layers=(-1,),
        kept_heads=None,
        formal={},
        dtype='float32',
        families=[*set(FAMILIES.values())],
        shots=0,
        seeds=seeds,
        steps=10,
        rates=[],
        margin=1.0,
    )
    features = Features((len(labels), 4, 8), data, '', folder, 'encoder')
    study = StoredStudy(features, settings, heads, results, 'rule', 'command', [])
    folder.mkdir(parents=True)
    write_study(study, data, folder)
    words = ['encoder', 'data', '--block', 'llm', '--work-dir', str(folder)]
    run_lm4ve('try', [*words, '--report-only'])
    _write_rest(folder)


def store_grid(folder: Path, scores: dict[str, list[float]]) -> None:
    """Write a study of the grid that the folder is named for, with its report.

    Args:
        folder (Path): The folder.
        scores (dict[str, list[float]]): Variant -> those of its seeds; of those that
            have none, nothing has run.
    """
    metric = 'accuracy/top1'
    variants = list(scores)
    subject = 'frozen pre-trained'
    rows = []
    timings = []
    labels = np.arange(540) % 10
    for name, own in scores.items():
        for seed, score in enumerate(own):
            # What is wrong for one variant is so for the others.
            is_wrong = np.arange(540) >= round(5.4 * score)
            given = pack((labels + is_wrong) % 10, 10)
            rows.append((name, seed, 0.003, score, 540, 540, 10, 20, 'k', given))
            timings.append(('test', name, seed, 0.1, 1.0, 1, 'CPU', 'k'))
    tuning = []
    for name in variants:
        for value, score in ((0.001, 90.0), (0.003, 95.0)):
            tuning.append((name, 'tune', value, 1000, score, 252, 252, 1, 'k', ''))
    folder.mkdir(parents=True)
    facts = dict(
        format=2,
        question=dict(grid=folder.name, metric=metric, subject=subject, reference=''),
        seeds=4,
        looks=[],
        title='Digits',
        greater_is_better=True,
        margin=1.0,
        variants=variants,
        pairs=[(subject, name) for name in variants if name != subject],
        grid_seeds=[0, 1, 2, 3],
        ladder=['0.0003', '0.001', '0.003'],
        published=None,
        classes=10,
        rule='rule',
        command='command',
    )
    write_json(facts, folder / 'study.json')
    counts = ('scored', 'total')
    facts_of = ('trainable', 'frozen', 'key', 'predicted')
    head = ('variant', 'seed', 'value', metric, *counts, *facts_of)
    write_csv(head, rows, folder / 'results.csv')
    head = (
        'variant',
        'stage',
        'value',
        'seed',
        metric,
        *counts,
        'kept',
        'key',
        'predicted',
    )
    write_csv(head, tuning, folder / 'tuning.csv')
    head = ('stage', 'variant', 'seed', 'step_seconds', 'seconds', 'threads')
    write_csv((*head, 'device', 'key'), timings, folder / 'timings.csv')
    samples = [('test', label, place, place) for place, label in enumerate(labels)]
    write_csv(('split', 'label', 'group', 'name'), samples, folder / 'pictures.csv')
    grid = ROOT / f'configs/ablations/{folder.name}.py'
    run_lm4ve('ablate', [str(grid), '--work-dir', str(folder.parent), '--report-only'])
    _write_rest(folder)


def _write_rest(folder: Path) -> None:
    """Write what is stored beside a report."""
    (folder / 'rule.txt').write_text('rule\n')
    write_json(dict(date='2026-12-02', commit='0123456789ab'), folder / 'run.json')
