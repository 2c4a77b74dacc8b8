"""Test a checkpoint of any task of the suite.

lm4ve test CONFIG CHECKPOINT
"""

from collections.abc import Sequence
from copy import deepcopy

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults

from lm4ve.commands.flags import parser_of
from lm4ve.errors import UserError
from lm4ve.runner import command_line
from lm4ve.tasks import task_of_config


def use_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation.

    Raises:
        UserError: Neither the config nor its task defines an augmentation.
    """
    if missing := [
        field for field in ('tta_model', 'tta_pipeline') if field not in cfg
    ]:
        task = task_of_config(cfg)
        if not task.tta_model:
            raise UserError(
                f'--tta needs {" and ".join(missing)} in a config for {task.title}.'
            )
        cfg.setdefault('tta_model', ConfigDict(type=task.tta_model))
        pipeline = deepcopy(cfg.test_dataloader.dataset.pipeline)
        flips = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
        pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]])
        cfg.setdefault('tta_pipeline', pipeline)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def main(argv: Sequence[str] | None = None) -> None:
    args = parser_of('test').parse_args(argv)
    if args.out is None and args.out_item is not None:
        raise UserError('--out-item needs --out FILE.')
    cfg = command_line.load_config(args)
    command_line.evaluate_checkpoint(cfg, args.checkpoint, args.allow_partial)
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise UserError('--show and --show-dir need default_hooks.visualization.')
        shown = dict(show=args.show, wait_time=args.wait_time, out_dir=args.show_dir)
        # mmpretrain writes on the picture itself: small ones are enlarged, or nobody
        # can read it.
        size = cfg.model.get('backbone', {}).get('img_size', 256)
        if (
            cfg.get('default_scope') == 'mmpretrain'
            and isinstance(size, int)
            and size <= 128
        ):
            shown['rescale_factor'] = 256 // size
        cfg.default_hooks.visualization.update(
            enable=True, interval=args.interval, **shown
        )
    command_line.finish_config(cfg, args)
    if args.tta:
        use_tta(cfg)  # last, so that --cfg-options reach the model and not its wrapper
    runner = command_line.build_runner(cfg, short_console=not args.verbose)
    if args.out and args.out_item != 'metrics':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        mmengine.dump(metrics, args.out)
