"""Misspell the fields of the shipped configs, and name the misspellings that nobody notices.

    HF_HUB_OFFLINE=1 PYTHONPATH=. python tools/dev/typos.py --count 600 --out typos.json
    PYTHONPATH=. python tools/dev/typos.py --compare before.json after.json

In each distinct field (the same key of the same class counts once) one letter is left
out, doubled, or swapped with the next one; a seed draws so many of these. The config is
made small as in the tests, so that a trial takes about a second. An outcome is one of

    refused   by the check of the config, or when the run is built from it, by a line of ours
    loud      an error of a library, before the first step has ended
    silent    trained a step as if nothing was wrong

What a test alone reads (``test_*``) is tested in the place of the step. Left out are free
names, which no table can have: a config's variables, patterns of ``custom_keys``, hooks
that are not MMEngine's; and what ``lm4ve test --tta`` reads.
"""

import argparse
import copy
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

import lm4ve.openmmlab  # noqa: F401  (before the hosts)
from lm4ve.errors import UserError
from lm4ve.runner.config import check_config
from lm4ve.runner.config.fields import FIELDS
from lm4ve.runner.runner import build_runner
from tests.helpers.remembered_runs import forget_runs
from tests.helpers.shrink import Shrinker, shrinker_of
from tests.helpers.tasks import FOLDERS, configs_of

#: The keys of these dicts are names that the user chooses. Of the default hooks, those that
#: MMEngine has are none.
FREE_NAMES = ('custom_keys', 'default_hooks', 'metainfo')
MMENGINES_HOOKS = {
    'checkpoint',
    'logger',
    'param_scheduler',
    'runtime_info',
    'sampler_seed',
    'timer',
}
#: Top-level fields that neither a training nor a test reads as fields.
LEFT_OUT = ('allow_new', 'custom_imports', 'tta_model', 'tta_pipeline', 'work_dir')


class Place(NamedTuple):
    """A field of a shipped config.

    Attributes:
        task (str): The task of the config.
        config (str): Its file, below the folder of its task.
        path (tuple): The keys and indices that lead to the dict.
        key (str): The field in that dict.
    """

    task: str
    config: str
    path: tuple[Any, ...]
    key: str

    def __str__(self) -> str:
        return '.'.join(map(str, (*self.path, self.key)))


class StepDone(Exception):
    """Ends a training after its first step."""


class EndHook(Hook):
    """Ends a training after its first step."""

    priority = 'LOWEST'

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """End the training."""
        raise StepDone


# ------------------------------------------------------------------------------ fields
def places_in(cfg: Config, task: str, config: str) -> Iterator[tuple[str, Place]]:
    """Yield each field of a config, after a text that is equal for the same field elsewhere."""
    for name, value in cfg.items():
        if name not in FIELDS or name in LEFT_OUT:
            continue
        if name == 'data_preprocessor' and name in cfg.model:
            continue  # a variable, which the model has got
        yield name, Place(task, config, (), name)
        for owner, path, key in _fields_below(value, name, (name,)):
            yield f'{owner}.{key}', Place(task, config, path, key)


def _fields_below(
    node: Any, owner: str, path: tuple[Any, ...]
) -> Iterator[tuple[str, tuple[Any, ...], str]]:
    """Yield owner, path and key of each field below a node.

    The owner is the class of the dict; of a dict without one, that of the dict around it
    and the way from there.
    """
    if isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _fields_below(value, owner, (*path, index))
    if not isinstance(node, Mapping):
        return
    owner = str(node.get('type', owner))
    are_free = owner.endswith(FREE_NAMES)
    for key, value in node.items():
        is_free = are_free and key not in MMENGINES_HOOKS
        # MMEngine adds the scope to what a config inherits from another project.
        if not is_free and key != '_scope_':
            yield owner, path, key
        yield from _fields_below(value, f'{owner}.{key}', (*path, key))


def distinct_places(shrinkers: Mapping[str, Shrinker], folder: Path) -> list[Place]:
    """Return one place for each distinct field of the shipped configs."""
    found: dict[str, Place] = {}
    for task, shrinker in shrinkers.items():
        for name in configs_of(task):
            cfg = load(shrinker, name, folder)
            if cfg is None:
                continue
            for text, place in places_in(cfg, task, name):
                found.setdefault(text, place)
    return list(found.values())


def load(shrinker: Shrinker, name: str, folder: Path) -> Config | None:
    """Return a shrunk config; None where what it needs is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        shrinker.enter(patch)
        try:
            return shrinker.load(name, folder / 'run')
        except pytest.skip.Exception:
            return None


# ------------------------------------------------------------------------------- typos
def misspellings(key: str, rng: random.Random) -> list[str]:
    """Return a field with one letter left out, one doubled, and two swapped."""
    at = rng.randrange(len(key))
    found = [key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:]]
    pairs = [i for i in range(len(key) - 1) if key[i] != key[i + 1]]
    if pairs:
        at = rng.choice(pairs)
        found.append(key[:at] + key[at + 1] + key[at] + key[at + 2 :])
    return [word for word in found if word and word != key]


def misspell(cfg: Config, place: Place, word: str) -> Config:
    """Return a copy of a config with another word in the place of a field."""
    changed = copy.deepcopy(cfg)
    node: Any = changed._cfg_dict
    for key in place.path:
        node = node[key]
    items = list(node.items())
    node.clear()
    for key, value in items:
        node[word if key == place.key else key] = value
    return changed


def try_out(cfg: Config, place: Place) -> tuple[str, str]:
    """Check a config and run it for a step; return the outcome and the error's text."""
    refusal = ''
    try:
        check_config(copy.deepcopy(cfg))
    except UserError as e:
        refusal = str(e)
    error = _run(cfg, tests=str(place).startswith('test_'))
    if refusal:
        return 'refused', f'{refusal} [otherwise: {error or "silent"}]'
    if error:
        return 'loud', error
    return 'silent', ''


def _run(cfg: Config, tests: bool) -> str:
    """Train a config for a step, or test it; return the error, or ''."""
    forget_runs()
    try:
        runner = build_runner(cfg)
        if tests:
            runner.test()
        else:
            runner.register_hook(EndHook())
            runner.train()
    except StepDone:
        return ''
    except Exception as e:
        return f'{type(e).__name__}: {" ".join(str(e).split())[:300]}'
    return ''


# ------------------------------------------------------------------------------ report
def report(rows: list[dict[str, str]]) -> None:
    """Print how many misspellings had each outcome, with and without the check; name the silent."""
    counts = Counter(row['outcome'] for row in rows)
    silent_without = sum(row['text'].endswith('[otherwise: silent]') for row in rows)
    print(
        f'{len(rows)} misspellings: {counts["loud"]} loud, {counts["refused"]} refused '
        f'({silent_without} of them silent without the check), {counts["silent"]} silent'
    )
    for row in rows:
        if row['outcome'] == 'silent':
            print(f'  silent: {row["field"]} as {row["word"]} ({row["config"]})')


def compare(before: Path, after: Path) -> None:
    """Print the reports of two runs with equal seeds, and what is silent in one of them alone."""
    silent = []
    for path in (before, after):
        rows = json.loads(path.read_text(encoding='utf-8'))
        print(path)
        report(rows)
        silent.append(
            {(r['field'], r['word']) for r in rows if r['outcome'] == 'silent'}
        )
    for field, word in sorted(silent[1] - silent[0]):
        print(f'newly silent: {field} as {word}')


def run(args: argparse.Namespace) -> None:
    """Try the misspellings that the seed draws, and write and print what came of them."""
    rng = random.Random(args.seed)
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        tasks = args.tasks or list(FOLDERS)
        shrinkers = {task: shrinker_of(task, folder / task) for task in tasks}
        places = distinct_places(shrinkers, folder)
        trials = [(p, word) for p in places for word in misspellings(p.key, rng)]
        drawn = rng.sample(trials, min(args.count, len(trials)))
        drawn.sort(key=lambda trial: (trial[0].task, trial[0].config))
        print(
            f'{len(places)} distinct fields, {len(drawn)} of {len(trials)} misspellings'
        )
        began = time.monotonic()
        shrunk: dict[str, Config] = {}
        for place, word in drawn:
            name = f'{place.task}/{place.config}'
            if name not in shrunk:
                # One at a time: the next one's files may replace this one's.
                shrunk = {name: require_config(shrinkers[place.task], place, folder)}
            rows.append(_trial(shrinkers[place.task], shrunk[name], place, word))
            if args.out:
                args.out.write_text(json.dumps(rows, indent=1), encoding='utf-8')
            if args.verbose:
                seconds = time.monotonic() - began
                print(f'{len(rows)} {seconds:.0f} s', *rows[-1].values(), flush=True)
    report(rows)


def require_config(shrinker: Shrinker, place: Place, folder: Path) -> Config:
    """Return the shrunk config of a place."""
    cfg = load(shrinker, place.config, folder)
    assert cfg is not None, place.config
    return cfg


def _trial(shrinker: Shrinker, cfg: Config, place: Place, word: str) -> dict[str, str]:
    """Try one misspelling in the working folder of its task."""
    with pytest.MonkeyPatch.context() as patch:
        shrinker.enter(patch)
        outcome, text = try_out(misspell(cfg, place, word), place)
    return dict(
        config=f'{place.task}/{place.config}',
        field=str(place),
        word=word,
        outcome=outcome,
        text=text,
    )


def main() -> None:
    """Read the command line, and run or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--count', type=int, default=600)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--tasks', nargs='+', choices=list(FOLDERS))
    parser.add_argument('--out', type=Path, help='what came of each, as JSON')
    parser.add_argument('--verbose', action='store_true')
    parser.add_argument('--compare', type=Path, nargs=2, metavar=('BEFORE', 'AFTER'))
    args = parser.parse_args()
    if args.compare:
        compare(*args.compare)
    else:
        run(args)


if __name__ == '__main__':
    main()
