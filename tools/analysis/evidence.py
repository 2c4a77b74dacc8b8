"""Run the studies of docs/results/protocol.md one after another, and collect their tables.

    python tools/analysis/evidence.py --data data --blocks work_dirs/blocks \\
        --encoders work_dirs/encoders --gemma gemma-3-270m-q4_k_m.gguf
    python tools/analysis/evidence.py --probes work_dirs/evidence/minilm.json

The protocol's commands write what the folders hold. A study whose tables are there is
left out; one that was killed goes on where it was. A study that fails does not stop the
others.

With --probes it tests, from the tables that are there, whether the probes of
tools/analysis/probe.py rank the layers: Spearman's correlation with the accuracy,
averaged over studies, against permutations of the layers of each model.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from lm4ve.errors import UserError
from lm4ve.files import write_csv
from lm4ve.runner.command_line import build_parser, run_tool

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ('dyck', 'copy', 'set', 'text')
LITE = ('package:efficientnet-lite0', '--size', '96')
LITE2 = ('package:efficientnet-lite2', '--size', '96')
MINILM, SMOLLM2 = 'package:all-MiniLM-L6-v2', 'package:SmolLM2-135M'
MEASURES = ['coherence', 'similarity']
#: What all studies share; the protocol gives the reasons.
COMMON = '--steps 120 --tokens 16 --margin 1'.split()


def list_studies(args: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Yield each study's name and its arguments of ``lm4ve try``."""
    sets = 'openmoji', 'emoji-vendors', 'glyphs', 'easy-vqa', 'digits'
    pictures = {name: str(args.data / name / 'pictures.csv') for name in sets}
    formal = [f'{name}={args.blocks / name}' for name in LANGUAGES]
    main = ['--block', MINILM, '--seeds', '8', '--formal']
    every = '--variants linear attentive frozen random formal attention mlp'.split()
    for name, path in pictures.items():
        yield f'lite0_{name}', [*LITE, path, *main, *formal, *every]

    yield from list_second_studies(pictures, str(args.encoders / 'dinov2-small'))

    families = ['--variants', 'linear', 'frozen', 'random', 'formal', 'attention']
    config = str(ROOT / 'configs/ablations/_base_/vit_glyphs.py')
    vit = [config, '--encoder-checkpoint', str(args.encoders / 'vit_glyphs.pth')]
    for name in ('digits', 'openmoji'):
        yield (
            f'vit_{name}',
            [vit[0], pictures[name], *vit[1:], *main, *formal[:1], *families],
        )
    hosts = (
        'video/videomae-demo_none_moving-digits',
        'pointcloud/pointbert-demo_none_primitives',
    )
    for name in hosts:
        config = str(ROOT / f'configs/{name}.py')
        weights = str(args.encoders / f'{Path(name).name}.pth')
        data = [f'config:{config}', '--encoder-checkpoint', weights]
        yield Path(name).name, [config, *data, *main, *formal[:1], *families]

    curve = '--variants linear frozen random --dtype bfloat16 --seeds 4'.split()
    for model, block, layers, names in (
        ('minilm', MINILM, '0 1 2 3 4 5', ('openmoji', 'glyphs')),
        ('smollm2', SMOLLM2, '0 5 10 15 20 25 29', ('openmoji', 'glyphs')),
        ('gemma3', args.gemma, '0 8 17', ('openmoji',) if args.gemma else ()),
    ):
        for name in names:
            words = [*LITE, pictures[name], '--block', str(block), *curve]
            for layer in layers.split():
                yield f'layers_{model}_{name}_{layer}', [*words, '--layers', layer]


def list_second_studies(
    pictures: dict[str, str], dinov2: str
) -> Iterator[tuple[str, list[str]]]:
    """Yield the studies of the second protocol: known baselines, and few shots.

    Args:
        pictures (dict[str, str]): A set's name -> its file.
        dinov2 (str): The folder that ``tools/analysis/dinov2_small.py`` writes.
    """
    common = [
        '--block',
        MINILM,
        '--seeds',
        '8',
        '--variants',
        'linear',
        'logreg',
        'knn',
    ]
    every = [*common, 'attentive', 'frozen', 'random', 'attention', 'mlp']
    few = [*common, 'frozen', 'random', 'attention']
    for name, path in pictures.items():
        yield f'recipe4_lite0_{name}', [*LITE, path, *every]
    for name in ('openmoji', 'glyphs', 'digits'):
        path = pictures[name]
        yield f'recipe4_lite0_{name}_5-shots', [*LITE, path, *few, '--shots', '5']
        for regime, shots in (('', 'all'), ('_5-shots', '5')):
            words = [*few, '--shots', shots]
            yield f'recipe4_lite2_{name}{regime}', [*LITE2, path, *words]
            yield f'recipe4_dinov2_{name}{regime}', [dinov2, path, *words]


def read_curves(probes: pd.DataFrame, tables: Path, model: str) -> pd.DataFrame:
    """Return how a model's measures and accuracies go with the layer of the block.

    Args:
        probes (pd.DataFrame): What probe.py has written for the model.
        tables (Path): Folder of the studies' tables.
        model (str): The model's name in those of the studies.

    Returns:
        pd.DataFrame: A row for each layer that was probed and that all studies have; the
        means of each measure and of each study's accuracy.
    """
    # The rows of the model without a block have no layer, so that pandas leaves them out.
    means = probes.groupby('layer')[MEASURES].mean()
    for path in sorted(tables.glob(f'layers_{model}_*/results.csv')):
        table = pd.read_csv(path)
        layer = table['variant'].str.extract(r'layer (\d+)')[0].astype(float)
        # pandas aligns by the layer: one that the study lacks gets NaN.
        means[path.parent.name] = table.groupby(layer)['accuracy'].mean()
    # First the studies that share no layer with the probes, then layers with a gap.
    means = means.dropna(axis='columns', how='all')
    return means.dropna()


def test_probes(
    files: Sequence[Path], tables: Path, count: int = 20_000
) -> pd.DataFrame:
    """Test whether each measure ranks the layers; p is one-sided, corrected by Holm.

    Args:
        files (Sequence[Path]): ``MODEL.json``, as probe.py writes them.
        tables (Path): Folder of the studies' tables.
        count (int): Permutations. Studies of one model share a permutation of its
            layers, since their accuracies are alike.
    """
    curves = []
    for path in files:
        ranks = read_curves(pd.read_json(path), tables, path.stem).rank()
        scaled = (ranks - ranks.mean()) / ranks.std(ddof=0)
        if len(scaled.columns) > len(MEASURES):
            curves.append(scaled)
    if not curves:
        raise UserError(
            f"'{tables}' has no layers_MODEL_* of the models that --probes names."
        )
    rng, rows = np.random.default_rng(0), []
    for measure in MEASURES:
        found = np.zeros(count + 1)
        for scaled in curves:
            total = scaled.drop(columns=MEASURES).sum(axis=1).to_numpy()
            orders = rng.permuted(np.tile(np.arange(len(total)), (count, 1)), axis=1)
            orders = np.vstack([np.arange(len(total)), orders])
            found += scaled[measure].to_numpy()[orders] @ total / len(total)
        studies = sum(len(scaled.columns) - len(MEASURES) for scaled in curves)
        p = float(np.mean(found >= found[0] - 1e-9))
        rows.append(
            dict(measure=measure, correlation=found[0] / studies, studies=studies, p=p)
        )
    result = pd.DataFrame(rows)
    result['holm_p'] = multipletests(result['p'], method='holm')[1]
    return result


def run_study(name: str, words: list[str], args: argparse.Namespace) -> bool:
    """Run a study and copy its tables to ``<out>/<name>``; return whether it succeeded.

    Args:
        name (str): The study's; ``<out>`` has no folder of that name yet.
        words (list[str]): The arguments of ``lm4ve try``.
        args (argparse.Namespace): With ``work_dir`` and ``out``.
    """
    report = args.work_dir / name
    places = ['--work-dir', str(report), '--cache', str(args.work_dir / 'features')]
    command = [sys.executable, '-m', 'lm4ve.commands', 'try', *words, *COMMON, *places]
    print(f'\n== {name}\n{shlex.join(command[1:])}', flush=True)
    if subprocess.run(command).returncode:
        return False
    target = args.out / name
    # The folder gets its name as a whole, since a study whose folder is there is done. What
    # a killed run has left in a partial one is overwritten.
    partial = target.with_suffix('.partial')
    partial.mkdir(parents=True, exist_ok=True)
    for path in (*report.glob('*.csv'), report / 'study.json', report / 'sentence.txt'):
        shutil.copy(path, partial)
    partial.rename(target)
    return True


def main(argv: Sequence[str] | None = None) -> None:
    add = (parser := build_parser(__doc__, {})).add_argument
    add(
        '--data', type=Path, default=Path('data'), help='folder of the sets of pictures'
    )
    add(
        '--blocks',
        type=Path,
        default=Path('work_dirs/blocks'),
        help='of formal languages',
    )
    add(
        '--encoders',
        type=Path,
        default=Path('work_dirs/encoders'),
        help='of checkpoints',
    )
    add(
        '--gemma',
        type=Path,
        help='Gemma-3-270M, a GGUF file; without it that study is left out',
    )
    add('--work-dir', type=Path, default=Path('work_dirs/evidence'))
    add('--out', type=Path, default=ROOT / 'docs/results/try', help='of the tables')
    add('--only', nargs='+', help='names of studies')
    add('--list', action='store_true', help='print the studies and stop')
    add('--probes', type=Path, nargs='+', help='MODEL.json of tools/analysis/probe.py')
    args = parser.parse_args(argv)
    if args.probes:
        table = test_probes(args.probes, args.out)
        rows = table.itertuples(index=False, name=None)
        write_csv(table.columns, rows, args.out / 'probes.csv')
        print(table.to_string(index=False))
        return
    studies = dict(list_studies(args))
    if unknown := set(args.only or ()) - set(studies):
        raise UserError(
            f'--only names no study: {", ".join(sorted(unknown))}. See --list.'
        )
    chosen = {
        name: words for name, words in studies.items() if name in (args.only or studies)
    }
    failed = []
    for name, words in chosen.items():
        done = (args.out / name).is_dir()
        if args.list:
            print(f'{"done" if done else "to do"}  {name}: {shlex.join(words)}')
        elif not done and not run_study(name, words, args):
            failed.append(name)
    if failed:
        raise UserError(
            f'These studies failed: {", ".join(failed)}. Fix: see above, start again.'
        )


if __name__ == '__main__':
    run_tool(main)
