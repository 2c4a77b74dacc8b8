"""Reads a grid from one Python file.

The overrides of all variants are checked when a grid is read, so that a mistake in one
is an error before the first training starts.
"""

import ast
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm4ve.ablation.grid import Grid, Tune, Variant
from lm4ve.ablation.identity import fresh_config
from lm4ve.errors import UserError, build_from, check, require
from lm4ve.runner.config import check_config, merge_options, read_config
from lm4ve.zoo import find_config


def load_grid(path: Path) -> Grid:
    """Read a grid file and check the overrides of its variants.

    Args:
        path (Path): A Python file; ``docs/guides/ablations.md`` describes its fields.

    Raises:
        UserError: A field or an override is wrong; the message names the file.
    """
    path = Path(path)
    require(
        path.is_file(),
        f"The grid '{path}' does not exist. Fix: name a Python file, such as those in "
        'configs/ablations.',
    )
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


def _refuse_repeated_keys(path: Path) -> None:
    """Refuse equal keys in a dict, of which Python silently keeps the last.

    Raises:
        UserError: It names line and key.
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
    """Check that every override of a variant matches a field of its config.

    Raises:
        UserError: It names the variant.
    """
    cfg = fresh_config(variant.config)
    # One seed and one value represent all.
    seed = grid.seeds[0]
    value = None
    if grid.tune is not None:
        value = grid.tune.values[0]
    try:
        merge_options(cfg, grid.trial(variant, stage, seed, value).options)
        check_config(cfg)
    except (UserError, TypeError, KeyError) as e:
        raise UserError(f"variant '{variant.name}': {e}") from e


# ---------------------------------------------------------------------------- fields
def _build(fields: dict[str, Any], folder: Path) -> Grid:
    """Build a grid from a file's fields; missing and unknown ones are refused.

    Args:
        fields (dict): The fields.
        folder (Path): The file's folder, to which paths are relative.

    Raises:
        UserError: See :func:`load_grid`.
    """
    settings = fields.pop('variants', None)
    require(
        isinstance(settings, dict) and settings,
        "it is no grid: it has no dict 'variants'. Fix: see docs/guides/ablations.md, and the "
        'files in configs/ablations.',
    )
    base = fields.pop('base', None)
    variants = []
    for name, own in settings.items():
        variants.append(_build_variant(str(name), own, base, folder))
    fields['seeds'] = _parse_seeds(fields.get('seeds', 0), 'seeds')
    if fields.get('tune') is not None:
        fields['tune'] = build_from(_build_tune, fields['tune'], 'tune')
    grid = build_from(
        Grid, fields, '', variants=tuple(variants), title=fields.get('name')
    )
    names = [variant.name for variant in variants]
    check('reference', grid.reference, choices=names)
    check('greater_is_better', grid.greater_is_better, kind=bool)
    return grid


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
    fields = {**settings, 'config': _find_base(config, folder)}
    # Not a field of the dict, whose key it is.
    named = functools.partial(Variant, name)
    return build_from(named, fields, field)


def _find_base(config: str, folder: Path) -> Path:
    """Return the file of a config: beside the grid, in the current folder, or a model's name."""
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
    """Build the settings of tuning from a grid's field ``tune``; see :class:`Tune`.

    Raises:
        UserError: There are fewer than two values, or no options.
    """
    names = [fields] if isinstance(fields, str) else fields
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
        seeds=_parse_seeds(seeds, 'tune.seeds'),
    )


def _parse_seeds(value: Any, name: str) -> tuple[int, ...]:
    """Return the seeds of a number of them, or of a list.

    Raises:
        UserError: There are none, or equal ones.
    """
    check(name, value, kind=(int, list, tuple))
    seeds = tuple(range(value)) if isinstance(value, int) else tuple(value)
    field = f'the number of different {name}'
    check(field, len(set(seeds)), least=max(len(seeds), 1))
    return seeds
