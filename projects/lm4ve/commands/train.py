"""Train a model of any task of the suite.

lm4ve train configs/lm4ve/vit-demo_minilm_digits.py
"""

from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import get_rank

from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError
from lm4ve.files import sole_use
from lm4ve.runner import command_line
from lm4ve.runner.resume import check_whole, resume_newest


def main(argv: Sequence[str] | None = None) -> None:
    args = parser_of('train').parse_args(argv)
    cfg = command_line.load_config(args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume not in (None, 'newest', 'auto'):
        cfg.resume, cfg.load_from = True, args.resume
    if args.auto_scale_lr:
        if cfg.get('auto_scale_lr') is None:
            raise UserError(
                '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...).'
            )
        cfg.auto_scale_lr.enable = True
    if args.no_persistent_workers:
        for loader in filter(None, map(cfg.get, command_line.DATALOADERS)):
            loader.persistent_workers = False
    command_line.finish_config(cfg, args)
    if args.resume in ('newest', 'auto'):
        resume_newest(cfg, needed=args.resume == 'newest')
    elif cfg.get('resume') and Path(cfg.get('load_from') or '').is_file():
        check_whole(cfg.load_from)
    runner = command_line.build_runner(cfg, short_console=not args.verbose)
    # Two trainings in one folder would replace each other's checkpoints.
    with sole_use(Path(cfg.work_dir) / f'training-{get_rank()}.lock'):
        runner.train()
