"""A study of heads as files: all that its report is made from, and nothing else.

study.json      what was compared and how
pictures.csv    the val and test pictures: label and group
results.csv     a row for each variant and seed: its value, and the label that it gave
                each test picture
tuning.csv      the same for tuning, on the val pictures; for the draws of a seed,
                which have other pictures each, the accuracy alone
timings.csv     what differs from run to run
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lm4ve.files import write_csv
from lm4ve.study.earlier import read_earlier
from lm4ve.study.heads.head import ProfiledHead
from lm4ve.study.heads.settings import StudySettings
from lm4ve.study.heads.study import Drawn, StudyResults, collect
from lm4ve.study.pictures.data import ProbeData
from lm4ve.study.pictures.items import name_of
from lm4ve.study.report_files import (
    PICTURES,
    RESULTS,
    TIMINGS,
    TUNING,
    pack,
    read_facts,
    unpack,
    write_facts,
)
from lm4ve.study.tokens.features import Features

#: Of study.json; another number for other fields.
_FORMAT = 1


@dataclass(frozen=True)
class StoredStudy:
    """What a report is made from.

    Attributes:
        features (Features): Of the tokens, shape and encoder; and the labels. Training
            pictures are known by their number in each class alone.
        settings (StudySettings): What the user asked for.
        heads (dict[str, ProfiledHead]): By name, in the order of tables; behind them
            those that were planned, and have no results.
        results (StudyResults): What the trainings gave.
        rule (str): How verdicts are reached.
        command (str): The command line.
        warnings (list[str]): What was warned of.
        looks (list[tuple[int, str]]): See :class:`lm4ve.study.earlier.Earlier`.
    """

    features: Features
    settings: StudySettings
    heads: dict[str, ProfiledHead]
    results: StudyResults
    rule: str
    command: str
    warnings: list[str]
    looks: list[tuple[int, str]] = field(default_factory=list)

    @property
    def block(self) -> str:
        """The name of the frozen block."""
        return 'frozen'


def write_study(study: StoredStudy, data: ProbeData, folder: Path) -> None:
    """Write a study into a folder.

    Args:
        study (StoredStudy): The study.
        data (ProbeData): Its data, perhaps with the items, whose names are written.
        folder (Path): The folder.
    """
    features = study.features
    labels = features.data.labels
    count = len(data.classes)
    train = labels[features.data.splits['train']]
    facts = dict(
        format=_FORMAT,
        question=question_of(study.settings),
        seeds=study.settings.seeds,
        looks=study.looks,
        encoder=features.encoder,
        prefix=features.prefix,
        shape=list(features.shape),
        data=features.data.name,
        classes=list(data.classes),
        train_pictures=np.bincount(train, minlength=count).tolist(),
        settings=asdict(study.settings),
        heads=[asdict(head) for head in study.heads.values()],
        pairs=study.results.pairs,
        rule=study.rule,
        command=study.command,
        warnings=study.warnings,
    )
    write_facts(facts, folder)

    pictures = []
    for split in ('val', 'test'):
        for index in features.data.splits[split].tolist():
            name = name_of(data.items[index]) if data.items else ''
            group = features.data.groups[index]
            pictures.append((split, labels[index], group, _as_text(name)))
    write_csv(('split', 'label', 'group', 'name'), pictures, folder / PICTURES)
    seconds = study.results.seconds.items()
    write_csv(('variant', 'seconds'), seconds, folder / TIMINGS)
    _write_tuning(study.results, count, folder)
    _write_results(study.results, count, folder)


def question_of(settings: StudySettings) -> dict[str, Any]:
    """Return what a study asks, whatever variants and seeds it has, in JSON's types."""
    return dict(
        block=settings.block,
        layers=list(settings.layers),
        kept_heads=settings.kept_heads,
        shots=settings.shots,
    )


def with_earlier(study: StoredStudy, folder: Path) -> StoredStudy:
    """Return a study with what a folder's study has planned and said before."""
    settings = study.settings
    earlier = read_earlier(folder, question_of(settings), settings.seeds)
    heads = dict(study.heads)
    for fields in earlier.heads:
        heads.setdefault(fields['name'], ProfiledHead(**fields))
    pairs = earlier.join_pairs(study.results.pairs)
    results = replace(study.results, pairs=pairs)
    return replace(study, heads=heads, results=results, looks=earlier.looks)


def _write_results(results: StudyResults, classes: int, folder: Path) -> None:
    """Write the trainings that are compared."""
    rows: list[tuple[Any, ...]] = []
    for name, predicted in results.predicted.items():
        for seed, row in enumerate(predicted):
            accuracy = results.accuracies[name][seed]
            recall = results.recalls[name][seed]
            value = results.values[name][seed]
            packed = pack(row, classes)
            rows.append((name, seed, value, accuracy, recall, packed))
    columns = ('variant', 'seed', 'value', 'accuracy', 'recall', 'predicted')
    write_csv(columns, rows, folder / RESULTS)


def _write_tuning(results: StudyResults, classes: int, folder: Path) -> None:
    """Write the trainings of tuning."""
    rows: list[tuple[Any, ...]] = []
    for name, by_value in results.tuned.items():
        for value, labels in by_value.items():
            kept = int(value in results.kept[name])
            accuracy = results.tuning[name][value]
            rows.append(
                (name, 'tune', value, '', accuracy, kept, pack(labels, classes))
            )
    for drawn in results.drawn:
        rows.append(
            (drawn.name, 'draw', drawn.value, drawn.seed, drawn.accuracy, 1, '')
        )
    fields = ('variant', 'stage', 'value', 'seed', 'accuracy', 'kept', 'predicted')
    write_csv(fields, rows, folder / TUNING)


def read_study(folder: Path) -> tuple[StoredStudy, ProbeData | None]:
    """Read what :func:`write_study` wrote.

    Args:
        folder (Path): The folder.

    Returns:
        tuple: The study; and the data with the files of the pictures, or None if these
        are not there.

    Raises:
        UserError: There is no study in the folder, or one of another version.
    """
    facts = read_facts(folder, _FORMAT)
    data, with_files = _read_data(facts, folder)
    count, tokens, channels = facts['shape']
    features = Features(
        shape=(count, tokens, channels),
        data=data,
        fingerprint='',
        folder=folder,
        encoder=facts['encoder'],
        prefix=facts['prefix'],
    )
    settings = StudySettings(
        **dict(facts['settings'], layers=tuple(facts['settings']['layers']))
    )
    heads = {head['name']: ProfiledHead(**head) for head in facts['heads']}
    study = StoredStudy(
        features=features,
        settings=settings,
        heads=heads,
        results=_read_results(data, facts['pairs'], folder),
        rule=facts['rule'],
        command=facts['command'],
        warnings=facts['warnings'],
        looks=[(seeds, sentence) for seeds, sentence in facts['looks']],
    )
    return study, with_files


def _read_data(
    facts: dict[str, Any], folder: Path
) -> tuple[ProbeData, ProbeData | None]:
    """Return the labels, and the same with the files of the pictures if they are there."""
    pictures = pd.read_csv(folder / PICTURES, keep_default_na=False)
    counts = facts['train_pictures']
    train = np.repeat(np.arange(len(counts)), counts)
    labels = np.concatenate([train, pictures['label'].to_numpy(np.int64)])
    place = np.arange(len(train), len(labels))
    is_test = (pictures['split'] == 'test').to_numpy()
    # Those of training are of no concern, and are groups of their own.
    own_groups = -1 - np.arange(len(train))
    groups = np.concatenate([own_groups, pictures['group'].to_numpy(np.int64)])
    data = ProbeData(
        name=facts['data'],
        labels=labels,
        splits=dict(
            train=np.arange(len(train)), val=place[~is_test], test=place[is_test]
        ),
        classes=tuple(facts['classes']),
        fingerprint='',
        items=(),
        groups=groups,
    )
    # write_csv puts an apostrophe before what a spreadsheet would take for a formula.
    files = [Path(name.removeprefix("'")) for name in pictures['name']]
    if not files or not all(path.is_file() for path in files):
        return data, None
    nowhere = [Path()] * len(train)
    return data, replace(data, items=[*nowhere, *files])


def _read_results(
    data: ProbeData, pairs: Sequence[Sequence[str]], folder: Path
) -> StudyResults:
    """Return the results of the trainings."""
    classes = len(data.classes)
    predicted = {}
    values = {}
    table = pd.read_csv(folder / TIMINGS, keep_default_na=False)
    seconds = dict(zip(table['variant'], table['seconds'].tolist(), strict=True))
    table = pd.read_csv(folder / RESULTS, keep_default_na=False)
    for name, rows in table.groupby('variant', sort=False):
        predicted[name] = np.stack([unpack(t, classes) for t in rows['predicted']])
        values[name] = rows['value'].tolist()
    tuned: dict[str, dict[float, np.ndarray]] = {}
    kept: dict[str, list[float]] = {}
    drawn = []
    table = pd.read_csv(folder / TUNING, keep_default_na=False)
    for row in table.itertuples(index=False):
        if row.stage == 'draw':
            drawn.append(Drawn(row.variant, row.value, int(row.seed), row.accuracy))
            continue
        of_head = tuned.setdefault(row.variant, {})
        of_head[row.value] = unpack(row.predicted, classes)
        if row.kept:
            kept.setdefault(row.variant, []).append(row.value)
    return collect(
        data=data,
        tuned=tuned,
        kept=kept,
        drawn=drawn,
        values=values,
        predicted=predicted,
        seconds=seconds,
        pairs=[(variant, against) for variant, against in pairs],
    )


def _as_text(name: str) -> str:
    """Return a name without bytes that are no UTF-8, which no file can hold."""
    return name.encode(errors='surrogateescape').decode(errors='replace')
