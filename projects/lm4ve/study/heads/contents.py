"""What the report of a study of heads says, from the study's files."""

from collections.abc import Sequence

import numpy as np

from lm4ve.study.cells import Metric, format_number
from lm4ve.study.compare import Comparison, Score, compare, estimate_score
from lm4ve.study.earlier import describe_looks
from lm4ve.study.heads.examples import choose_examples, has_pictures
from lm4ve.study.heads.head import BATCH
from lm4ve.study.heads.ladder import WORDS
from lm4ve.study.heads.mistakes import class_rows, confusion_rows
from lm4ve.study.heads.names import name_block, name_data, short_name, words_of_shots
from lm4ve.study.heads.stored import StoredStudy
from lm4ve.study.heads.study import StudyResults
from lm4ve.study.heads.training import RECIPE
from lm4ve.study.pictures.data import ProbeData
from lm4ve.study.report import Mistakes, Report, notes_on_plan
from lm4ve.study.sentence import PROBES, Subject, answer, conclude
from lm4ve.study.table import Row

#: Fewer test pictures get a note.
_FEW_PICTURES = 300
_METRIC = Metric('accuracy')
_RECALL_WORDS = 'Recall: the mean over classes, in per cent.'
_COSTS_WORDS = (
    'Trainable parameters; MFLOP: millions of floating-point operations for one picture, '
    'up to the final norm; the value that was tuned; seconds: of a training, the median.'
)


def report_of(study: StoredStudy, data: ProbeData | None) -> Report:
    """Return what the report of a study says.

    Args:
        study (StoredStudy): The study, as it was read.
        data (ProbeData, optional): The data with their items. The page shows some of
            them if they are pictures.
    """
    results = study.results
    features = study.features
    settings = study.settings
    scores = score_heads(study)
    names = _order(study, scores)
    comparisons = _sort(compare_heads(study), names)
    encoder = short_name(features.encoder)
    place = name_data(features.data.name, features.encoder)
    scope = 'On this data'
    if settings.shots:
        place += f' with {words_of_shots(settings.shots)}'
        scope = f'With {words_of_shots(settings.shots)}'
    block = name_block(study.heads[study.block])
    subject = Subject(block, encoder, place, _METRIC, settings.margin)
    recalls = {name: f'{own.mean():.1f}' for name, own in results.recalls.items()}
    return Report(
        title=f'{encoder} on {place}: {block}',
        metric=_METRIC,
        margin=settings.margin,
        reference=study.block,
        names=names,
        scores=scores,
        comparisons=comparisons,
        sentence=answer(comparisons, study.heads, subject),
        details=conclude(comparisons, study.heads, _METRIC, settings.margin, scope),
        notes=notes_on(study, results),
        costs=cost_rows(study, results),
        costs_words=_COSTS_WORDS,
        recipe=_describe_recipe(study),
        rule=study.rule,
        command=study.command,
        warnings=study.warnings,
        cells={'recall': recalls},
        cells_words=_RECALL_WORDS,
        mistakes=_find_mistakes(study, comparisons, data),
        looks=describe_looks(study.looks),
    )


def _find_mistakes(
    study: StoredStudy, comparisons: Sequence[Comparison], data: ProbeData | None
) -> Mistakes:
    """Return what the block and the head beside it get wrong; arguments as above."""
    results = study.results
    labels = study.features.data
    with_scores = [one for one in comparisons if one.reason != 'no scores']
    # The strongest baseline comes first.
    pair = (study.block, with_scores[0].against)
    examples = []
    if data is not None and has_pictures(data):
        examples = choose_examples(data, results, pair)
    return Mistakes(
        pair=pair,
        test_count=len(labels.splits['test']),
        classes=class_rows(labels, results, pair),
        confusions=confusion_rows(labels, results, pair),
        examples=examples,
    )


def compare_heads(study: StoredStudy) -> list[Comparison]:
    """Return the comparisons of a study, each with its verdict."""
    results = study.results
    data = study.features.data
    test = data.splits['test']
    scores = {name: 100.0 * own for name, own in results.correct.items()}
    most_frequent = np.bincount(data.labels[test]).max() / len(test)
    return compare(
        scores,
        results.pairs,
        study.settings.margin,
        groups=data.groups[test],
        chance=100 * float(most_frequent),
    )


def score_heads(study: StoredStudy) -> dict[str, Score]:
    """Return the score of each head with its interval."""
    data = study.features.data
    groups = data.groups[data.splits['test']]
    settings = study.settings
    scores = {}
    for name, correct in study.results.correct.items():
        points = 100.0 * correct
        scores[name] = estimate_score(points, settings.seeds, settings.margin, groups)
    return scores


def _order(study: StoredStudy, scores: dict[str, Score]) -> list[str]:
    """Return heads in the order of tables: the strongest probe first, others as planned."""

    def place(name: str) -> float:
        is_probe = study.heads[name].family in PROBES
        return -scores[name].mean if is_probe else 0.0

    return sorted(scores, key=place)


def _sort(comparisons: list[Comparison], names: list[str]) -> list[Comparison]:
    """Return comparisons in the order of tables, those without scores last."""

    def place(comparison: Comparison) -> int:
        if comparison.against in names:
            return names.index(comparison.against)
        return len(names)

    return sorted(comparisons, key=place)


def notes_on(study: StoredStudy, results: StudyResults) -> list[str]:
    """Return warnings for the reader: few pictures, short trainings, rates at an edge."""
    features = study.features
    splits = features.data.splits
    train_pictures = len(splits['train']) + len(splits['val'])
    if study.settings.shots:
        train_pictures = study.settings.shots * len(features.data.classes)
    test_pictures = len(features.data.splits['test'])
    channels = features.shape[-1]
    width = study.heads[study.block].embed_dims
    mappers = 2 * channels * width  # their parameters: C to D, and D to C
    notes = notes_on_plan(results.pairs, results.accuracies)
    if train_pictures < mappers:
        notes.append(
            f'{train_pictures:,} pictures train the {mappers:,} parameters of the two '
            'mappers: more pictures may change the answer.'
        )
    if test_pictures < _FEW_PICTURES:
        worth = _METRIC.amount(100 / test_pictures)
        notes.append(f'Of {test_pictures:,} test pictures, one is worth {worth}.')
    without_score = []
    for name, predicted in results.predicted.items():
        if (predicted < 0).any():
            without_score.append(f"'{name}'")
    if without_score:
        notes.append(
            'Scores were not finite, and their pictures count as wrong, in trainings of '
            f'{", ".join(without_score)}.'
        )
    edges = []
    for name in results.values:
        if results.is_edge(name):
            edges.append(f"'{name}' ({results.describe_values(name)})")
    if edges:
        notes.append(
            'The best learning rate (of logreg: C) is the smallest or largest that was '
            f'tried: {", ".join(edges)}. --rates tries others.'
        )
    return notes


def cost_rows(study: StoredStudy, results: StudyResults) -> list[Row]:
    """Return a row for each head: its size, its cost and how it was trained."""
    rows = []
    for name in results.accuracies:
        head = study.heads[name]
        word = WORDS.get(head.family, 'rate')
        tuned = f'{word} {results.describe_values(name)}'
        if results.is_edge(name):
            tuned += ' (edge)'
        rows.append(
            {
                'variant': name,
                'trainable': f'{head.trainable:,}',
                'MFLOP': format_number(head.operations / 1e6),
                'tuned': tuned,
                'seeds': str(len(results.accuracies[name])),
                'seconds': format_number(results.seconds[name]),
            }
        )
    return rows


def _describe_recipe(study: StoredStudy) -> str:
    """Return the paragraph of the page about data and training.

    Its fixed words describe what :class:`lm4ve.study.heads.training.Trainer` and
    :class:`Study` do, and are changed with them.
    """
    data = study.features.data
    sizes = []
    for split, indices in data.splits.items():
        sizes.append(f'{len(indices):,} {split}')
    _, tokens, channels = study.features.shape
    settings = study.settings
    return (
        f'Pictures: {", ".join(sizes)}; {len(data.classes)} classes; tokens '
        f'({tokens}, {channels}), standardized by channel. AdamW, one cycle, '
        f'{settings.steps} steps of {BATCH}, products in {settings.dtype} (recipe '
        f'{RECIPE}). All seeds share a first tuning on val; each of the {settings.seeds} '
        'seeds then draws fit and val pictures of its own, chooses among the values that '
        'the first could not tell apart, and trains on train and val (few shots on train). '
        'The test pictures choose nothing.'
    )
