"""Probe which layer of a language model may help an encoder, before training with each.

    python tools/analysis/probe.py CONFIG --base CONFIG_WITHOUT_BLOCK --layers 0 1 2 3 --seeds 0 1 2

For the model without a block and with each layer it prints the coherence of the gradients
of single samples (the mean cosine of all pairs) and the similarity of the tokens before the
neck and after the block (linear CKA), with 95 % intervals where there are several seeds.
--scores compares both with the scores of a grid over layers, as tools/analysis/ablate.py
writes them, by Spearman's rank correlation.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.ablation.statistics import interval
from lm4ve.cost.tables import print_table
from lm4ve.errors import UserError
from lm4ve.files import write_json
from lm4ve.probes.probe import Probe, probe_layers
from lm4ve.runner.command_line import config_parser, finish_config, load_config, run_tool


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = config_parser(__doc__)
    add = parser.add_argument
    add('--base', help='config of the same model without a block')
    add('--layers', type=int, nargs='+', required=True, help='of the language model')
    add('--samples', type=int, default=64, help='training samples that are looked at')
    add('--steps', type=int, default=50, help='training steps before, without a schedule')
    add(
        '--seeds',
        type=int,
        nargs='+',
        help="of weights, training and samples, one after another; default: the config's",
    )
    add('--scores', type=Path, help='results.csv of a grid whose x is the layer')
    add('--metric', help='its column; default: the first metric')
    add('--out', type=Path, help='JSON file for the results')
    return parser.parse_args(argv)


def read_scores(path: Path, metric: str | None) -> 'pd.Series[float]':
    """Return the mean score of each layer.

    Raises:
        UserError: The file is no table of a grid over layers.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as e:
        raise UserError(f"--scores '{path}' cannot be read: {e}. Fix: correct the path.") from e
    layer = table.get('variant', pd.Series(dtype=str)).astype(str).str.extract(r'^layer (\d+)$')[0]
    columns = [c for c in table.columns if '/' in c]
    column = metric or (columns[0] if columns else '')
    if layer.isna().all() or column not in table:
        raise UserError(
            f"--scores '{path}' must have a column 'variant' with 'layer 0', 'layer 1' and one "
            f'of scores, got {", ".join(table.columns)}. Fix: name the results.csv of a grid over '
            'layers, and its column by --metric.'
        )
    return table.groupby(layer.astype(float))[column].mean()


def measures(probes: Sequence[Probe]) -> list[dict[str, str]]:
    """Return a row for each layer: means over the seeds and their intervals."""
    rows = []
    for layer in dict.fromkeys(p.layer for p in probes):
        ours = [p for p in probes if p.layer == layer]
        rows.append(
            {
                'layer': 'no block' if layer is None else str(layer),
                'coherence': _mean([p.coherence for p in ours]),
                'similarity': _mean([p.similarity for p in ours if p.similarity is not None]),
            }
        )
    return rows


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ''
    low, high = interval(values)
    found = f'{np.mean(values):.4f}'
    return found if len(values) == 1 else f'{found} ({low:.4f} to {high:.4f})'


def compare(probes: Sequence[Probe], scores: 'pd.Series[float]') -> list[dict[str, str]]:
    """Return Spearman's correlation of each measure, its mean over seeds, with the scores."""
    rows = []
    layers = [k for k in dict.fromkeys(p.layer for p in probes) if k in scores.index]
    for name in ('coherence', 'similarity'):
        means = [np.mean([getattr(p, name) for p in probes if p.layer == k]) for k in layers]
        found = spearmanr(means, scores.loc[layers])
        rows.append(
            {
                'measure': name,
                "Spearman's correlation with the scores": f'{found.statistic:.2f}',
                'p': f'{found.pvalue:.2f}',
                'layers': str(len(layers)),
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.samples < 2 or args.steps < 0:
        raise UserError('--samples must be at least 2 and --steps at least 0. Fix: correct them.')
    seeds = args.seeds or ()
    if not all(0 <= s < 2**32 for s in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(
            f'--seeds {" ".join(map(str, seeds))} must be different numbers from 0 to 2**32 - 1. '
            'Fix: correct them.'
        )
    scores = None if args.scores is None else read_scores(args.scores, args.metric)
    with tempfile.TemporaryDirectory() as folder:
        cfg, base = (
            None if path is None else _config(args, path, folder)
            for path in (args.config, args.base)
        )
        probes: list[Probe] = []
        for seed in seeds or (None,):
            for one in (cfg, base):
                if one is not None and seed is not None:
                    one.setdefault('randomness', {})['seed'] = seed
            probes += probe_layers(cfg, args.layers, args.samples, args.steps, base)
    print_table(f'{args.samples} samples after {args.steps} steps', measures(probes))
    if scores is not None:
        print_table(f'Against {args.scores}', compare(probes, scores))
    if args.out is not None:
        write_json([p.row() for p in probes], args.out, 'Fix: name another file with --out.')


def _config(args: argparse.Namespace, path: str, folder: str):
    given = argparse.Namespace(
        **{**vars(args), 'config': path},
        work_dir=folder,
        launcher='none',
        local_rank=0,
        no_pin_memory=False,
    )
    if path == args.base:
        given.cfg_options = None
    return finish_config(load_config(given), given)


if __name__ == '__main__':
    run_tool(main)
