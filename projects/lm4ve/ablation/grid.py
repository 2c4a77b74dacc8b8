"""What a grid is: variants of a config times seeds, read from one Python file.

Every mistake in a grid is found here, before the first training starts.
"""

import ast
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lm4ve.ablation.fields import fresh_config, identity, merge
from lm4ve.errors import UserError
from lm4ve.runner.config import read_config


@dataclass(frozen=True)
class Variant:
    """One column of the comparison.

    Attributes:
        name (str): As tables and plots show it.
        config (Path): The config that it starts from.
        options (dict): Dotted config field -> value.
        x (float, optional): Its place on the axis of a sweep.
    """

    name: str
    config: Path
    options: dict[str, Any]
    x: float | None = None


@dataclass(frozen=True)
class Tune:
    """How a value is chosen for each variant, without the test set.

    Attributes:
        fields (tuple[str]): Config fields that all take the value.
        values (tuple): Tried for every variant.
        seeds (tuple[int]): Each value's score is the mean over these.
        options (dict): Overrides that train on one part of the training data and
            test on another.
    """

    fields: tuple[str, ...]
    values: tuple[Any, ...]
    seeds: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One training with one test.

    Attributes:
        id (str): A hash of everything that determines the result
            (:func:`lm4ve.ablation.fields.identity`).
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
    """A checked grid; :func:`load_grid` makes it.

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
        """Return one trial of a variant.

        Raises:
            UserError: An override hits no field of the config.
        """
        options = {**self.common, **variant.options}
        if self.tune is not None:
            options.update({f: value for f in self.tune.fields})
            if stage == 'tune':
                options.update(self.tune.options)
        options = _with_seed({**options, 'randomness.seed': seed}, seed)
        where = f"{self.name}: variant '{variant.name}'"
        cfg = merge(fresh_config(variant.config), options, where)
        return Trial(identity(cfg), stage, variant.name, seed, value, variant.config, options)

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
        """Return the trials that the comparison is made of, in the grid's order.

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


# -------------------------------------------------------------------- reading
def load_grid(path: Path) -> Grid:
    """Read and check a grid file.

    Args:
        path (Path): A Python file; ``docs/guides/ablations.md`` describes its fields.

    Returns:
        Grid: Every trial of it has been expanded once.

    Raises:
        UserError: Something in it is wrong; the message names file and field.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"The grid '{path}' does not exist. Fix: see configs/ablations/ for what there is."
        )
    _refuse_repeated_keys(path)
    try:
        fields = read_config(path, set_scope=False).to_dict()
    except (SyntaxError, NameError, TypeError, KeyError) as e:
        raise UserError(
            f"The grid '{path}' cannot be read: {e}. Fix: it must be "
            'a Python file of plain assignments.'
        ) from e
    # Names with an underscore are the file's own.
    raw = {k: v for k, v in fields.items() if not k.startswith('_')}
    try:
        grid = _grid(raw, path.parent)
        # The values that tuning may pick share their fields: one stands for all.
        first = None if grid.tune is None else grid.tune.values[0]
        grid.tuning()
        grid.main({v.name: first for v in grid.variants})
    except UserError as e:
        raise UserError(f"Grid '{path}': {e}") from None
    return grid


def _refuse_repeated_keys(path: Path) -> None:
    """Refuse equal keys, of which Python keeps the last and says nothing."""
    try:
        tree = ast.parse(path.read_text())
    except SyntaxError as e:
        raise UserError(f"The grid '{path}' is no Python file: {e}. Fix: mend that line.") from e
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [k.value for k in node.keys if isinstance(k, ast.Constant)]
            for key in keys:
                if keys.count(key) > 1:
                    raise UserError(
                        f"Grid '{path}', line {node.lineno}: '{key}' is there twice. Fix: give "
                        'each variant (and each override) a name of its own.'
                    )


def _grid(raw: dict, folder: Path) -> Grid:
    _refuse_unknown(raw, ['base', *(f.name for f in fields(Grid))], 'field')
    needed = ('name', 'base', 'metric', 'seeds', 'reference', 'variants')
    missing = [f for f in needed if f not in raw]
    if missing:
        raise UserError(
            f'the fields {", ".join(missing)} are missing. Fix: set '
            'them; docs/guides/ablations.md says what they mean.'
        )
    name = raw['name']
    if not isinstance(name, str) or not re.fullmatch(r'[\w.-]+', name):
        raise UserError(
            f'name={name!r} names the folder of the results. Fix: a '
            'text of letters, digits, dots and dashes.'
        )
    variants = _variants(raw, folder)
    names = [v.name for v in variants]
    if raw['reference'] not in names:
        raise UserError(
            f"reference='{raw['reference']}' is none of the variants. "
            f'Fix: one of {", ".join(names)}.'
        )
    for key, kind in (
        ('metric', str),
        ('greater_is_better', bool),
        ('keep_checkpoints', bool),
        ('common', dict),
    ):
        if key in raw and not isinstance(raw[key], kind):
            raise UserError(
                f'{key}={raw[key]!r} has the wrong type. Fix: set it to a {kind.__name__}.'
            )
    seeds, tune = _seeds(raw['seeds'], 'seeds'), _tune(raw.get('tune'))
    given = dict(title=name) | raw | dict(seeds=seeds, variants=variants, tune=tune)
    return Grid(**{k: v for k, v in given.items() if k != 'base'})


def _refuse_unknown(found: dict, allowed: Sequence[str], what: str) -> None:
    for key in found:
        if key not in allowed:
            raise UserError(f"there is no {what} '{key}'. Fix: one of {', '.join(allowed)}.")


def _seeds(value: Any, name: str) -> tuple[int, ...]:
    """Return the seeds of a number of them, or of a list."""
    listed = isinstance(value, (list, tuple))
    number = isinstance(value, int) and not isinstance(value, bool)
    seeds = tuple(value) if listed else tuple(range(value)) if number else ()
    whole = all(isinstance(s, int) and s >= 0 for s in seeds)
    if not seeds or len(set(seeds)) < len(seeds) or not whole:
        raise UserError(
            f'{name}={value!r} gives no seeds, or one twice. Fix: a number of at least 1, or a '
            'list of different seeds from 0 on.'
        )
    return seeds


def _variants(raw: dict, folder: Path) -> tuple[Variant, ...]:
    given = raw['variants']
    if not isinstance(given, dict) or not given:
        raise UserError(
            f'variants={given!r} holds none. Fix: a dict of at least '
            'one: name -> dict(config=..., options=..., x=...).'
        )
    found = []
    for name, v in given.items():
        if not isinstance(v, dict):
            raise UserError(
                f"variants['{name}']={v!r} is no dict. Fix: "
                'dict(config=..., options=..., x=...), or dict().'
            )
        _refuse_unknown(v, ('config', 'options', 'x'), f"field of variants['{name}']")
        x = v.get('x')
        if x is not None and not (isinstance(x, (int, float)) and math.isfinite(x)):
            raise UserError(
                f"variants['{name}'].x={x!r} is no number. Fix: its place on the axis of the sweep."
            )
        config = _config(v.get('config', raw['base']), folder)
        options = v.get('options', {})
        if not isinstance(options, dict):
            raise UserError(
                f"variants['{name}'].options={options!r} is no dict. "
                'Fix: dotted config field -> value.'
            )
        found.append(Variant(str(name), config, options, x))
    with_x = sum(v.x is not None for v in found)
    if 0 < with_x < len(found):
        raise UserError(
            f'x is set in {with_x} of {len(found)} variants. Fix: in all (a sweep) or in none.'
        )
    return tuple(found)


def _config(name: str, folder: Path) -> Path:
    """Find a config, relative to the grid file or else to the current folder."""
    for start in (folder, Path()):
        if (start / name).is_file():
            path = (start / name).resolve()
            cfg = fresh_config(path)
            for key in ('train_dataloader', 'train_cfg', 'test_dataloader', 'test_evaluator'):
                if cfg.get(key) is None:
                    raise UserError(
                        f"the config '{name}' has no {key}. Fix: name one that trains and tests."
                    )
            return path
    raise UserError(
        f"the config '{name}' does not exist, neither from '{folder}' nor from the current "
        f'folder. Fix: its path from one of them.'
    )


def _tune(raw: dict | None) -> Tune | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise UserError(
            f'tune={raw!r} is no dict. Fix: dict(fields=..., values=..., seeds=..., options=...).'
        )
    _refuse_unknown(raw, [f.name for f in fields(Tune)], 'field of tune')
    tuned = raw.get('fields', ())
    tuned = (tuned,) if isinstance(tuned, str) else tuple(tuned)
    values = tuple(raw.get('values', ()))
    if not tuned or len(values) < 2 or len(set(map(repr, values))) < len(values):
        raise UserError(
            f'tune.fields={tuned} and tune.values={values} leave no '
            'choice. Fix: at least one field and two different values.'
        )
    options = raw.get('options', {})
    if not options:
        raise UserError(
            'tune.options is missing: tuning would choose by the test set. Fix: overrides that '
            "test on a part of the training data, for example {'train_dataloader.dataset.split': "
            "'fit', 'test_dataloader.dataset.split': 'val'}."
        )
    return Tune(tuned, values, _seeds(raw.get('seeds', 1), 'tune.seeds'), options)
