"""Train a model of any task of the suite.

lm4ve train configs/lm4ve/vit-demo_minilm_digits.py
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

import lm4ve  # noqa: F401  (registers before the config is read)
from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_runner, common_parser, finish_config, load_config
from lm4ve.runner.resume import check_whole, resume_newest

#: Values of --resume that are not files.
_SEARCH = ('newest', 'auto')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common_parser('Train a model')
    add = parser.add_argument
    text = (
        'a checkpoint to resume from; without a value, the newest whole one in the work '
        "directory; 'auto': that one, or the beginning if there is none"
    )
    add('--resume', nargs='?', const='newest', help=text)
    add('--no-validate', action='store_true', help='do not evaluate')
    text = 'scale the learning rate to the actual batch size, by auto_scale_lr.base_batch_size'
    add('--auto-scale-lr', action='store_true', help=text)
    text = 'set persistent_workers=False in the dataloaders'
    add('--no-persistent-workers', action='store_true', help=text)
    return parser.parse_args(argv)


def merge_args(cfg: Config, args: argparse.Namespace) -> Config:
    """Merge the training flags into the config."""
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume not in (None, *_SEARCH):
        cfg.resume = True
        cfg.load_from = args.resume
    if args.auto_scale_lr:
        if cfg.get('auto_scale_lr') is None:
            raise UserError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...).')
        cfg.auto_scale_lr.enable = True
    if args.no_persistent_workers:
        for field in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(field) is not None:
                cfg[field].persistent_workers = False
    return cfg


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = finish_config(merge_args(load_config(args), args), args)
    if args.resume in _SEARCH:
        resume_newest(cfg, needed=args.resume == 'newest')
    elif cfg.get('resume') and Path(cfg.get('load_from') or '').is_file():
        check_whole(cfg.load_from)
    build_runner(cfg, short_console=not args.verbose).train()
