"""Write a test set's forecasts for the server of Argoverse 1 or 2.

    python tools/motion/submit.py configs/motion/vectornet_llama_argoverse1.py \\
        work_dirs/vectornet_llama_argoverse1/epoch_60.pth submission.h5 \\
        --cache data/argoverse1/test.cache
"""

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from lm4ve.errors import UserError, check
from lm4ve.runner import command_line as cli
from lm4ve.runner.flags import EVALUATE, RUN
from lm4ve.tasks import require_task
from lm4ve.tasks.motion.metrics import CONVENTIONS, find_metric


def check_test_set(cfg: Config, out: str) -> None:
    """Refuse forecasts that no server accepts, before the test runs.

    Raises:
        UserError: The test set is simulated, the test has no metric of forecasts, or the
            file's suffix is another format's.
    """
    require_task(cfg, 'motion')
    kind = cfg.test_dataloader.dataset.type
    if kind.endswith('TrafficDataset'):
        raise UserError(
            f"test_dataloader.dataset.type='{kind}' is simulated: no server accepts its "
            'forecasts. Fix: name a config of Argoverse 1 or 2.'
        )
    metric = find_metric(cfg.test_evaluator)
    if metric is None:
        raise UserError(
            'test_evaluator has no lm4ve.MotionMetric, which writes the file.'
        )
    suffix, _ = CONVENTIONS[metric.convention]
    check(f"The suffix of '{out}'", Path(out).suffix, choices=(suffix,))


def main(argv: list[str] | None = None) -> None:
    """Test the checkpoint; the metric writes the forecasts to the submission file."""
    parser = cli.build_parser(__doc__, {**RUN, **EVALUATE})
    parser.add_argument('checkpoint')
    parser.add_argument('out', help='.h5 for Argoverse 1, .parquet for 2')
    parser.add_argument('--cache', help='of the test set; default: as configured')
    args = parser.parse_args(argv)
    cfg = cli.final_config(args, set_flags, trains=False)
    cli.build_runner(cfg).test()
    print(f'written: {args.out}')


def set_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Let a config test the checkpoint, and its metric write the submission."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    check_test_set(cfg, args.out)
    cli.evaluate_checkpoint(
        cfg, args.checkpoint, args.allow_partial, args.strict_config
    )
    cfg.test_evaluator.submission = args.out
    if args.cache:
        cfg.test_dataloader.dataset.cache = args.cache


if __name__ == '__main__':
    cli.run_tool(main)
