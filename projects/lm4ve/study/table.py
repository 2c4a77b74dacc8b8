"""The table of a study's results: a row for each variant, and its comparison."""

from collections.abc import Iterable, Mapping, Sequence

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
) -> list[Row]:
    """Return a row for each variant: its score, and the reference's difference from it.

    Args:
        names (Sequence[str]): The variants, in the order of the rows.
        reference (str): The variant that is compared with the others.
        scores (Mapping[str, Score]): Variant -> its score.
        comparisons (Sequence[Comparison]): Its comparisons. A variant that it was not
            compared with has empty cells.
        metric (Metric): What the scores are.
        margin (float): The smallest difference that matters, in its unit.
        cells (Mapping): More columns: name -> variant -> cell.
    """
    comparison_with = {comparison.against: comparison for comparison in comparisons}
    rows = []
    for name in names:
        row = {'variant': name, metric.name: 'not run'}
        if name in scores:
            row[metric.name] = metric.score(scores[name].mean, scores[name].half)
        for column, of_variant in cells.items():
            row[column] = of_variant.get(name, '')
        row |= {
            'difference': '',
            'interval': '',
            "Holm's p": '',
            f"'{reference}' is": '',
        }
        if name == reference:
            row[f"'{reference}' is"] = '(this one)'
        if name in comparison_with:
            row |= _comparison_cells(comparison_with[name], metric, margin)
        rows.append(row)
    return rows


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


def _comparison_cells(comparison: Comparison, metric: Metric, margin: float) -> Row:
    """Return the cells of a row that compare the reference with the row's variant."""
    return {
        'difference': metric.difference(comparison.difference),
        'interval': metric.interval(comparison.low, comparison.high),
        "Holm's p": format_p_value(comparison.corrected_p),
        f"'{comparison.variant}' is": brief_verdict(comparison, metric, margin),
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
