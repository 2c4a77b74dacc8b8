"""Reads a grid from one Python file.

The overrides of all variants are checked when a grid is read, so that a mistake in one
is an error before the first training starts.
"""

import ast
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm4ve.errors import UserError, build_from, check, listing, require
from lm4ve.runner.config import check_config, merge_options, read_config
from lm4ve.study.trainings.grid import Grid, Published, Tune, Variant
from lm4ve.study.trainings.identity import fresh_config
from lm4ve.study.trainings.scores import unit_of
from lm4ve.study.tune import TUNING_SEED
from lm4ve.zoo import find_config


def load_grid(path: Path) -> Grid:
    """Read a grid file and check the overrides of its variants.

    Args:
        path (Path): A Python file; ``docs/guides/ablations.md`` describes its fields.

    Raises:
        UserError: A field or an override is wrong; the message names the file.
    """
    path = Path(path)
    _require_file(path)
    try:
        content = read_config(path, set_scope=False).to_dict()
        _refuse_repeated_keys(path)
        # Names with an underscore are the file's own.
        fields = {key: value for key, value in content.items() if key[0] != '_'}
        grid = _build(fields, path.parent)
        for stage in grid.stages:
            for variant in grid.variants:
                _check_options(grid, variant, stage)
    except (UserError, TypeError, KeyError) as e:
        raise UserError(f"Grid '{path}': {e}") from e
    return grid


def read_name(path: Path) -> str:
    """Return the name of a grid, which is that of its folder; its configs are not read.

    Raises:
        UserError: The file does not exist, or has no name.
    """
    _require_file(path)
    name = read_config(path, set_scope=False).get('name')
    check(f"Grid '{path}': name", name, kind=str)
    return str(name)


def _require_file(path: Path) -> None:
    """Refuse a grid that does not exist."""
    require(
        path.is_file(),
        f"The grid '{path}' does not exist. Fix: name a Python file, such as those in "
        'configs/ablations.',
    )


def _refuse_repeated_keys(path: Path) -> None:
    """Refuse a file in which a dict display has a key twice: Python keeps the last silently.

    Only keys that are written as constants are compared.

    Args:
        path (Path): A Python file; it is parsed, not run.

    Raises:
        UserError: A key is there twice; the message names line and key.
    """
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if not isinstance(node, ast.Dict):
            continue
        seen = set()
        for key in node.keys:
            if not isinstance(key, ast.Constant):
                continue
            if key.value in seen:
                raise UserError(f"line {node.lineno} has '{key.value!s}' twice.")
            seen.add(key.value)


def _check_options(grid: Grid, variant: Variant, stage: str) -> None:
    """Check that the overrides of a variant fit its config, without training anything.

    Args:
        grid (Grid): The grid, whose own overrides are merged too.
        variant (Variant): The variant.
        stage (str): 'test', or 'tune' with the overrides of tuning.

    Raises:
        UserError: An override names no field, or the config is wrong with it; the
            message names the variant.
    """
    cfg = fresh_config(variant.config)
    # One seed and one value represent all.
    seed = grid.seeds[0]
    value = None
    if grid.tune is not None:
        value = grid.tune.values[0]
    try:
        merge_options(cfg, grid.options(variant, stage, seed, value))
        check_config(cfg)
    except (UserError, TypeError, KeyError) as e:
        raise UserError(f"variant '{variant.name}': {e}") from e


# ---------------------------------------------------------------------------- fields
def _build(fields: dict[str, Any], folder: Path) -> Grid:
    """Build a grid from a file's fields; missing and unknown ones are refused.

    Args:
        fields (dict): Name -> value, as the file holds them; the dict is changed.
        folder (Path): The file's folder, to which paths are relative.

    Raises:
        UserError: See :func:`load_grid`.
    """
    settings_of = fields.pop('variants', None)
    require(
        isinstance(settings_of, dict) and settings_of,
        "it is no grid: it has no dict 'variants'. Fix: see docs/guides/ablations.md, and the "
        'files in configs/ablations.',
    )
    base = fields.pop('base', None)
    variants = []
    for name, settings in settings_of.items():
        variants.append(_build_variant(str(name), settings, base, folder))
    fields['seeds'] = _parse_seeds(fields.get('seeds', 0), 'seeds')
    if fields.get('tune') is not None:
        fields['tune'] = build_from(_build_tune, fields['tune'], 'tune')
    if fields.get('published') is not None:
        fields['published'] = build_from(Published, fields['published'], 'published')
    if fields.get('margin') is None:
        fields['margin'] = _default_margin(fields.get('metric'))
    grid = build_from(
        Grid, fields, '', variants=tuple(variants), title=fields.get('name')
    )
    check('margin', grid.margin, kind=(int, float), above=0)
    if grid.tune is not None:
        shared = sorted({*grid.seeds} & {*grid.tune.seeds})
        require(
            not shared,
            f'tune.seeds has {listing([str(seed) for seed in shared])}, and seeds too: a seed '
            'of the shared tuning would draw twice what it chooses by. Fix: others.',
        )
    names = [variant.name for variant in variants]
    require(
        bool(grid.subject) != bool(grid.reference),
        'subject or reference has to be named, and not both. Fix: subject is what the grid '
        'is about, of which the gain over each other variant is told; reference is what the '
        'gains of the others are over.',
    )
    if grid.subject:
        check('subject', grid.subject, choices=names)
    else:
        check('reference', grid.reference, choices=names)
    check('greater_is_better', grid.greater_is_better, kind=bool)
    if grid.published is not None:
        _check_published(grid.published, names)
    return grid


def _default_margin(metric: Any) -> float:
    """Return the smallest difference that matters, where a grid does not say it.

    Raises:
        UserError: The metric has no unit in which one is a usual choice.
    """
    if isinstance(metric, str) and unit_of(metric).name != '%':
        raise UserError(
            f"margin is missing: which difference in '{metric}' matters? Fix: for "
            'example margin=0.05.'
        )
    return 1.0


def _check_published(published: Published, variants: Sequence[str]) -> None:
    """Check that published scores are numbers of the grid's variants.

    Args:
        published (Published): The scores.
        variants (Sequence[str]): The names of the grid's variants.

    Raises:
        UserError: A variant is none of the grid's, or a score is no number.
    """
    check('published.source', published.source, kind=str)
    check('published.scores', published.scores, kind=dict)
    for name, scores in published.scores.items():
        check('published.scores', name, choices=variants)
        field = f"published.scores['{name}']"
        check(field, scores, kind=dict)
        for metric, score in scores.items():
            check(f"{field}['{metric}']", score, kind=(int, float))


def _build_variant(name: str, settings: Any, base: Any, folder: Path) -> Variant:
    """Build a variant from its fields.

    Args:
        name (str): Its name.
        settings (dict): Its fields.
        base: The grid's config, which a variant without one has.
        folder (Path): The grid's folder.

    Raises:
        UserError: A field is wrong, or there is no config.
    """
    field = f"variants['{name}']"
    check(field, settings, kind=dict)
    check(f'{field}.options', settings.get('options', {}), kind=dict)
    config = settings.get('config', base)
    require(
        isinstance(config, str),
        f'{field} has no config. Fix: set base, or config in the variant.',
    )
    fields = dict(settings, config=_find_base(config, folder))
    # The name is the key of the dict, not one of its fields.
    variant_of_that_name = functools.partial(Variant, name)
    return build_from(variant_of_that_name, fields, field)


def _find_base(config: str, folder: Path) -> Path:
    """Return the file of a config that a grid names.

    Args:
        config (str): A path relative to the grid's folder or to the current one, or the
            name of a model of the zoo, in this order.
        folder (Path): The grid's folder.
    """
    beside_grid = folder / config
    if beside_grid.is_file():
        return beside_grid.resolve()
    return find_config(Path(config)).resolve()


def _build_tune(
    fields: str | Sequence[str],
    values: Sequence[Any],
    options: dict[str, Any] | None = None,
    seeds: int | Sequence[int] = 1,
) -> Tune:
    """Build the settings of tuning from the entries of a grid's field ``tune``.

    Args:
        fields (str | Sequence[str]): The config field that gets the value, or several.
        values (Sequence): The values to try, at least two different ones.
        options (dict, optional): See :class:`Tune`; an error if it is missing or empty.
        seeds (int | Sequence[int]): How many seeds each value is tried with, or which. A
            number counts from :data:`lm4ve.study.tune.TUNING_SEED`.

    Raises:
        UserError: There are fewer than two values, no options, or the seeds are wrong.
    """
    names = [fields] if isinstance(fields, str) else fields
    # By their text, since a value may be a list, which has no hash.
    different = {repr(value) for value in values}
    check('the number of different tune.values', len(different), least=2)
    if not options:
        raise UserError(
            'tune.options is missing, so that tuning would select by the test set. Set overrides '
            "that test on a part of the training data, such as 'test_dataloader.dataset.split'."
        )
    return Tune(
        fields=tuple(names),
        values=tuple(values),
        options=options,
        seeds=_parse_seeds(seeds, 'tune.seeds', first=TUNING_SEED),
    )


def _parse_seeds(value: Any, name: str, first: int = 0) -> tuple[int, ...]:
    """Return the seeds that a field stands for: a count n gives n from the first, a list itself.

    Args:
        value: The field's value.
        name (str): The field, for the error.
        first (int): The first seed of a count.

    Raises:
        UserError: The value is neither an int nor a list, there is no seed, or two are
            equal.
    """
    check(name, value, kind=(int, list, tuple))
    seeds = tuple(value if not isinstance(value, int) else range(first, first + value))
    number_of_different = len(set(seeds))
    needed = len(seeds) if seeds else 1
    check(f'the number of different {name}', number_of_different, least=needed)
    return seeds
