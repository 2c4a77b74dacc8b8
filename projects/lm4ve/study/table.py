"""The table of a study's results: a row for each variant, and its comparison."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from lm4ve.study.cells import Metric, format_p_value
from lm4ve.study.compare import Comparison, Score

#: Cells by column; all rows of a table have the same columns.
Row = dict[str, str]


def result_rows(
    names: Sequence[str],
    reference: str,
    scores: Mapping[str, Score],
    comparisons: Sequence[Comparison],
    metric: Metric,
    margin: float,
    cells: Mapping[str, Mapping[str, str]],
    failed: Collection[str] = (),
) -> list[Row]:
    """Return a row for each variant: its score, and its comparison with the reference.

    Args:
        names (Sequence[str]): The variants, in the order of the rows.
        reference (str): The variant that is in each comparison.
        scores (Mapping[str, Score]): Variant -> its score.
        comparisons (Sequence[Comparison]): Its comparisons. A variant that it was not
            compared with has empty cells.
        metric (Metric): What the scores are.
        margin (float): The smallest difference that matters, in its unit.
        cells (Mapping): More columns: name -> variant -> cell.
        failed (Collection[str]): Variants that have failed, wholly or in part.
    """
    comparison_with = {row_of(one, reference): one for one in comparisons}
    verdict = _verdict_title(reference, comparisons)
    rows = []
    for name in names:
        row = {'variant': name, metric.name: state_without_score(name, failed)}
        if name in scores:
            row[metric.name] = metric.score(scores[name].mean, scores[name].half)
        for column, of_variant in cells.items():
            row[column] = of_variant.get(name, '')
        row |= {
            'difference': '',
            'interval': '',
            "Holm's p": '',
            verdict: '',
        }
        if name == reference:
            row[verdict] = '(this one)'
        if name in comparison_with:
            comparison = comparison_with[name]
            row |= _comparison_cells(comparison, metric)
            row[verdict] = brief_verdict(comparison, metric, margin)
        rows.append(row)
    return rows


def state_without_score(name: str, failed: Collection[str]) -> str:
    """Return the cell of a variant that has no score."""
    return 'failed' if name in failed else 'not run'


def row_of(comparison: Comparison, reference: str) -> str:
    """Return the variant that is compared with the reference."""
    if comparison.variant == reference:
        return comparison.against
    return comparison.variant


def words_of_gain(reference: str, comparisons: Sequence[Comparison]) -> str:
    """Return whose gain a positive difference is, as in "'frozen' over the variant"."""
    if _is_of_reference(reference, comparisons):
        return f"'{reference}' over the variant"
    return f"the variant over '{reference}'"


def _verdict_title(reference: str, comparisons: Sequence[Comparison]) -> str:
    """Return the title of the column of verdicts."""
    if _is_of_reference(reference, comparisons):
        return f"'{reference}' is"
    return f"beside '{reference}'"


def _is_of_reference(reference: str, comparisons: Sequence[Comparison]) -> bool:
    """Return whether verdicts are on the reference, and not on the variants beside it."""
    return all(one.variant == reference for one in comparisons)


def narrow_rows(rows: Sequence[Row], cells: Iterable[str]) -> list[Row]:
    """Return rows of :func:`result_rows` with the columns that a narrow terminal has room for.

    Args:
        rows (Sequence[Row]): The rows.
        cells (Iterable[str]): The columns that a kind of study has added.
    """
    left_out = {*cells, "Holm's p"}
    narrow = []
    for row in rows:
        narrow.append({name: row[name] for name in row if name not in left_out})
    return narrow


def _comparison_cells(comparison: Comparison, metric: Metric) -> Row:
    """Return the cells with the numbers of a comparison."""
    return {
        'difference': metric.difference(comparison.difference),
        'interval': metric.interval(comparison.low, comparison.high),
        "Holm's p": format_p_value(comparison.corrected_p),
    }


def brief_verdict(comparison: Comparison, metric: Metric, margin: float) -> str:
    """Return a verdict in a few words: 'better', 'within 1 point', 'open: few groups'."""
    if comparison.verdict == 'equal':
        return f'within {metric.margin(margin)}'
    if comparison.verdict != 'open':
        return comparison.verdict
    needed = []
    if comparison.needed_seeds:
        needed.append(f'{comparison.needed_seeds:,} seeds')
    if comparison.needed_pictures:
        needed.append(f'{comparison.needed_pictures:,} pictures')
    if needed:
        return f'open: needs {", ".join(needed)}'
    return f'open: {comparison.reason}'


def as_markdown(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    columns = list(rows[0])
    lines = [columns, ['---'] * len(columns)]
    for row in rows:
        lines.append([cell.replace('|', '\\|') for cell in row.values()])
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
