"""A grid: variants of a config times seeds, read from one Python file.

The overrides of all variants are checked when a grid is read, so that a mistake in one
is an error before the first training starts.
"""

import ast
import copy
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from lm4ve.errors import UserError, build_from, check, require
from lm4ve.runner.config import check_config, merge_options, read_config
from lm4ve.version import __version__
from lm4ve.zoo import find_config


@dataclass(frozen=True)
class Variant:
    """One column of the comparison.

    Attributes:
        name (str): Its name in tables and plots.
        config (Path): The config that it starts from.
        options (dict): Dotted config field -> value.
        x (float, optional): Its place on the axis of a sweep.
    """

    name: str
    config: Path
    options: dict[str, Any] = field(default_factory=dict)
    x: float | None = None


@dataclass(frozen=True)
class Tune:
    """How a value is selected for each variant, without the test set.

    Attributes:
        fields (tuple[str]): The config fields that get the value.
        values (tuple): Tried for every variant.
        options (dict): Overrides that train on one part of the training data and
            test on another.
        seeds (tuple[int]): Each value's score is the mean over these.
    """

    fields: tuple[str, ...]
    values: tuple[Any, ...]
    options: dict[str, Any]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """One training with one test.

    Attributes:
        id (str): A hash of everything that determines the result (:func:`identity`).
        stage (str): 'tune' or 'main'.
        variant (str): The variant's name.
        seed (int): The training's seed.
        value: The tuned value; None without tuning.
        config (Path): The config file.
        options (dict): Every override, the seed included.
    """

    id: str
    stage: str
    variant: str
    seed: int
    value: Any
    config: Path
    options: dict[str, Any]

    def __str__(self) -> str:
        value = '' if self.value is None else f', {self.value}'
        return f'{self.stage} {self.variant}, seed {self.seed}{value}'


@dataclass(frozen=True)
class Grid:
    """A checked grid; :func:`load_grid` reads it.

    Attributes: the fields that ``docs/guides/ablations.md`` describes.
    """

    name: str
    metric: str
    seeds: tuple[int, ...]
    reference: str
    variants: tuple[Variant, ...]
    title: str
    greater_is_better: bool = True
    common: dict[str, Any] = field(default_factory=dict)
    tune: Tune | None = None
    xlabel: str | None = None
    keep_checkpoints: bool = False

    @property
    def is_sweep(self) -> bool:
        """Whether the variants lie on an axis of numbers."""
        return all(v.x is not None for v in self.variants)

    def trial(self, variant: Variant, stage: str, seed: int, value: Any) -> Trial:
        """Return one trial of a variant."""
        options = {**self.common, **variant.options}
        if self.tune is not None:
            options.update(dict.fromkeys(self.tune.fields, value))
            if stage == 'tune':
                options.update(self.tune.options)
        options = _with_seed({**options, 'randomness.seed': seed}, seed)
        trial_id = identity(variant.config, options)
        return Trial(
            trial_id, stage, variant.name, seed, value, variant.config, options
        )

    def tuning(self) -> list[Trial]:
        """Return every tuning trial, in the grid's order."""
        if self.tune is None:
            return []
        return [
            self.trial(v, 'tune', seed, value)
            for v in self.variants
            for value in self.tune.values
            for seed in self.tune.seeds
        ]

    def main(self, values: dict[str, Any]) -> list[Trial]:
        """Return the trials that are compared, in the grid's order.

        Args:
            values (dict): Variant -> its tuned value. In a grid that tunes, a
                variant without a value has no trials yet.
        """
        return [
            self.trial(v, 'main', seed, values.get(v.name))
            for v in self.variants
            if self.tune is None or v.name in values
            for seed in self.seeds
        ]


def _with_seed(value: Any, seed: int) -> Any:
    """Replace '{seed}' by the seed; a text that is '{seed}' alone becomes a number."""
    if isinstance(value, dict):
        return {k: _with_seed(v, seed) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_seed(v, seed) for v in value)
    if isinstance(value, str) and '{seed}' in value:
        return seed if value == '{seed}' else value.replace('{seed}', str(seed))
    return value


# ---------------------------------------------------------------------------- configs
@functools.cache
def _read(path: Path) -> Config:
    return read_config(path, set_scope=False)


def fresh_config(path: Path) -> Config:
    """Return a copy of a config; a file is read once for all its trials."""
    return copy.deepcopy(_read(path))


def identity(path: Path, options: dict[str, Any]) -> str:
    """Return a hash of everything that a trial's result depends on, 16 hex digits.

    It covers the whole config with the trial's overrides, seed included, and the
    versions of this package and of PyTorch. It does not cover the files that the config
    names (data, checkpoints), the number of threads and the device.
    """
    cfg = fresh_config(path)
    # As it is trained, schedules and sizes that follow included. MMEngine removes
    # `_delete_`.
    merge_options(cfg, copy.deepcopy(options))
    content = dict(config=cfg.to_dict(), lm4ve=__version__, torch=torch.__version__)
    text = json.dumps(content, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_options(grid: Grid, variant: Variant, stage: str) -> None:
    """Check that every override of a variant matches a field of its config."""
    cfg = fresh_config(variant.config)
    value = grid.tune and grid.tune.values[0]  # one seed and value represent all
    try:
        merge_options(cfg, grid.trial(variant, stage, grid.seeds[0], value).options)
        check_config(cfg)
    except (UserError, TypeError, KeyError) as e:
        raise UserError(f"variant '{variant.name}': {e}") from e


# ---------------------------------------------------------------------------- reading
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
        grid = _build({k: v for k, v in content.items() if k[0] != '_'}, path.parent)
        for stage in ('main', 'tune')[: 1 + (grid.tune is not None)]:
            for variant in grid.variants:
                _check_options(grid, variant, stage)
    except (UserError, TypeError, KeyError) as e:
        raise UserError(f"Grid '{path}': {e}") from e
    return grid


def _refuse_repeated_keys(path: Path) -> None:
    """Refuse equal keys in a dict, of which Python silently keeps the last."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Dict):
            counts = Counter(k.value for k in node.keys if isinstance(k, ast.Constant))
            for key in (k for k, count in counts.items() if count > 1):
                raise UserError(f"line {node.lineno} has '{key!s}' twice.")


def _build(raw: dict[str, Any], folder: Path) -> Grid:
    """Build a grid from a file's fields; missing and unknown ones are refused.

    Raises:
        UserError: See :func:`load_grid`.
    """
    require(
        isinstance(raw.get('variants'), dict) and raw['variants'],
        "it is no grid: it has no dict 'variants'. Fix: see docs/guides/ablations.md, and the "
        'files in configs/ablations.',
    )
    base = raw.pop('base', None)
    variants = []
    for name, settings in raw.pop('variants').items():
        check(f"variants['{name}']", settings, kind=dict)
        check(f"variants['{name}'].options", settings.get('options', {}), kind=dict)
        config = settings.get('config', base)
        require(
            isinstance(config, str),
            f"variants['{name}'] has no config. Fix: set base, or config in the variant.",
        )
        # A path is relative to the grid file, or else to the current folder, or a
        # model's name.
        path = Path(config)
        config = (
            folder / path if (folder / path).is_file() else find_config(path)
        ).resolve()
        fields = {**settings, 'config': config}
        build = functools.partial(Variant, str(name))
        variants.append(build_from(build, fields, f"variants['{name}']"))
    raw['seeds'] = _parse_seeds(raw.get('seeds', 0), 'seeds')
    if raw.get('tune') is not None:
        raw['tune'] = build_from(_parse_tune, raw['tune'], 'tune')
    fixed = dict(variants=tuple(variants), title=raw.get('name'))
    grid = build_from(Grid, raw, '', **fixed)
    check('reference', grid.reference, choices=[v.name for v in variants])
    check('greater_is_better', grid.greater_is_better, kind=bool)
    return grid


def _parse_seeds(value: Any, name: str) -> tuple[int, ...]:
    """Return the seeds of a number of them, or of a list."""
    check(name, value, kind=(int, list, tuple))
    seeds = tuple(value) if isinstance(value, (list, tuple)) else tuple(range(value))
    check(f'the number of different {name}', len(set(seeds)), least=max(len(seeds), 1))
    return seeds


def _parse_tune(
    fields: str | Sequence[str],
    values: Sequence[Any],
    options: dict[str, Any] | None = None,
    seeds: int | Sequence[int] = 1,
) -> Tune:
    fields = (fields,) if isinstance(fields, str) else tuple(fields)
    check('the number of different tune.values', len(set(map(repr, values))), least=2)
    if not options:
        raise UserError(
            'tune.options is missing, so that tuning would select by the test set. Set overrides '
            "that test on a part of the training data, such as 'test_dataloader.dataset.split'."
        )
    return Tune(fields, tuple(values), options, _parse_seeds(seeds, 'tune.seeds'))
