"""Write a test set's forecasts for the server of Argoverse 1 or 2.

    python tools/motion/submit.py configs/motion/vectornet_llama_argoverse1.py \\
        work_dirs/vectornet_llama_argoverse1/epoch_60.pth submission.h5 \\
        --cache data/argoverse1/test.cache
"""

from collections.abc import Sequence

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.engine.command_line import (
    build_runner,
    common_parser,
    finish_config,
    load_config,
    run_tool,
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = common_parser('Write a submission')
    parser.add_argument('checkpoint')
    parser.add_argument('out', help='.h5 for Argoverse 1, .parquet for 2')
    parser.add_argument('--cache', help='of the test set; default: as the config says')
    args = parser.parse_args(argv)
    cfg = load_config(args)
    cfg.load_from, cfg.resume = args.checkpoint, False
    cfg.test_evaluator.update(submission=args.out, format_only=True)
    if args.cache:
        cfg.test_dataloader.dataset.cache = args.cache
    build_runner(finish_config(cfg, args)).test()
    print(f'written: {args.out}')


if __name__ == '__main__':
    run_tool(main)
