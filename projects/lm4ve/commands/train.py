"""Train a model of any task of the suite.

    lm4ve train configs/lm4ve/vit-demo_minilm_digits.py
    lm4ve train CONFIG --dry-run     # check all that the training needs, and start nothing
    lm4ve train CONFIG --epochs 30 --lr 3e-4 --batch-size 64

docs/guides/before_training.md describes the dry run.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_rank

from lm4ve.commands.flags import PLAIN_AMP, parser_of
from lm4ve.errors import UserError
from lm4ve.files import ORPHANS, sole_use
from lm4ve.runner.autocast import use_autocast
from lm4ve.runner.config.final import DATALOADERS, final_config
from lm4ve.runner.config.lengths import set_batch_size, set_epochs, set_rate
from lm4ve.runner.config.loading import set_strict_loading
from lm4ve.runner.missing import SEARCHED, require_all
from lm4ve.runner.runner import build_runner


def run(args: argparse.Namespace) -> None:
    """Train the config's model as the flags say."""
    if args.dry_run:
        # The table needs rich, which an installation without extras may lack.
        from lm4ve.dry_run import dry_run

        configure = functools.partial(training_config, args)
        dry_run(configure, args.dry_run_device)
        return
    cfg = training_config(args)
    require_all(cfg)
    runner = build_runner(cfg, short_console=not args.verbose)
    # Two trainings in one folder would replace each other's checkpoints.
    with sole_use(Path(cfg.work_dir) / f'training-{get_rank()}.lock', ORPHANS):
        runner.train()


def require_for_processes(argv: Sequence[str], processes: int) -> None:
    """Refuse a training for whose processes something is missing, before they start.

    A dry run says so in its table.

    Args:
        argv (Sequence[str]): The command line.
        processes (int): How many it shall have on this machine.

    Raises:
        UserError: See :func:`lm4ve.runner.missing.require_all`.
    """
    args = parser_of('train').parse_args(argv)
    if not args.dry_run:
        require_all(training_config(args, for_this_machine=False), processes)


def training_config(args: argparse.Namespace, for_this_machine: bool = True) -> Config:
    """Return the config of a training, with all flags, checked.

    Args:
        args (argparse.Namespace): The flags.
        for_this_machine (bool): Change what needs a GPU if this machine has none.

    Raises:
        UserError: See :func:`lm4ve.runner.config.final.final_config`.
    """
    return final_config(args, set_flags, for_this_machine)


def set_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Change a config as the flags of a training say.

    Raises:
        UserError: The config lacks what a flag needs.
    """
    if args.epochs is not None:
        set_epochs(cfg, args.epochs)
    if args.lr is not None:
        set_rate(cfg, args.lr)
    if args.batch_size is not None:
        set_batch_size(cfg, args.batch_size)
    if args.no_validate:
        cfg.val_cfg = None
        cfg.val_dataloader = None
        cfg.val_evaluator = None
    if args.amp is PLAIN_AMP:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif args.amp is not None:
        use_autocast(cfg, args.amp)
    if args.resume in SEARCHED:
        cfg.resume = args.resume
    elif args.resume is not None:
        cfg.resume = True
        cfg.load_from = args.resume
    if args.strict_config:
        if not cfg.get('resume'):
            raise UserError(
                '--strict-config needs --resume, whose checkpoint it checks.'
            )
        hooks = cfg.get('default_hooks') or {}
        options = dict(hooks.get('whole_checkpoint') or {}, strict_config=True)
        options.pop('type', None)
        set_strict_loading(cfg, **options)
    if args.auto_scale_lr:
        if cfg.get('auto_scale_lr') is None:
            raise UserError(
                '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...).'
            )
        cfg.auto_scale_lr.enable = True
    if args.no_persistent_workers:
        for name in DATALOADERS:
            if cfg.get(name):
                cfg[name].persistent_workers = False
