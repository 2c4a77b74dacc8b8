"""``make demo``: the main job on the embedded default, with and without the block.

Trains a small ViT on real handwritten digits, once with a frozen block of
all-MiniLM-L6-v2 and once without, tests both on the held-out 30 %, and prints
what was measured, whichever is ahead.
"""

import statistics
import time
from pathlib import Path

import lm4ve.commands  # noqa: F401  (before torch, whose threads read what this sets)
from lm4ve.blocks import count_parameters
from lm4ve.runner import command_line as cli
from lm4ve.runner.tables import print_table

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {
    'ViT + frozen MiniLM block': 'vit-demo_minilm_digits',
    'ViT': 'vit-demo_none_digits',
}
#: With `--llm`, which needs the package of `make demo-llm`.
DECODER = {'ViT + frozen SmolLM2 block': 'vit-demo_smollm2_digits'}


def train_and_test(
    label: str, config: str, work_dir: Path, options: list
) -> dict[str, str]:
    """Train and test one config; return its row of the table."""
    start = time.time()
    words = [config, '--work-dir', str(work_dir)]
    if options:
        words += ['--cfg-options', *options]
    args = cli.build_parser(None, cli.RUN).parse_args(words)
    cfg = cli.final_config(args)
    runner = cli.build_runner(cfg, short_console=True)
    runner.train()
    step_seconds = runner.message_hub.get_scalar('train/time').data[0]
    metrics = runner.test()
    checkpoint = Path((work_dir / 'last_checkpoint').read_text())
    trainable, frozen = count_parameters(runner.model)
    median = statistics.median(float(seconds) for seconds in step_seconds)
    return {
        '': label,
        'top-1 %': f'{metrics["accuracy/top1"]:.2f}',
        'trainable': f'{trainable:,}',
        'frozen': f'{frozen:,}',
        's / step': f'{median:.4f}',
        'checkpoint': f'{checkpoint.stat().st_size / 1e6:.2f} MB',
        'training + test': f'{time.time() - start:.0f} s',
    }


def main(argv: list[str] | None = None) -> None:
    parser = cli.build_parser(__doc__, {})
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        help='for example train_cfg.max_epochs=5',
    )
    parser.add_argument('--llm', action='store_true', help='SmolLM2-135M too')
    args = parser.parse_args(argv)
    demos = dict(VARIANTS)
    if args.llm:
        demos = {**DECODER, **VARIANTS}
    rows = []
    lines = []
    for label, name in demos.items():
        work_dir = args.work_dir / name
        config = str(ROOT / f'configs/lm4ve/{name}.py')
        rows.append(train_and_test(label, config, work_dir, args.cfg_options))
        lines += [
            label,
            f'  checkpoint   {(work_dir / "last_checkpoint").read_text()}',
            f'  logs         {work_dir}/*/*.log',
            f'  TensorBoard  {work_dir}/*/vis_data',
        ]
    print_table('Handwritten digits, 540 held-out images', rows)
    lines.append(f'\ntensorboard --logdir {args.work_dir}')
    print('\n'.join(lines))


if __name__ == '__main__':
    cli.run_tool(main)
