"""Test a checkpoint of any task of the suite.

lm4ve test CONFIG CHECKPOINT
"""

import argparse
from copy import deepcopy
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric, DumpResults, Evaluator
from torch import Tensor

from lm4ve.errors import UserError, check
from lm4ve.files import replacing, require_writable
from lm4ve.runner.config.final import final_config
from lm4ve.runner.config.loading import evaluate_checkpoint
from lm4ve.runner.prediction_table import PredictionTable, require_one_label
from lm4ve.runner.runner import build_runner
from lm4ve.runner.scored_data import count_samples
from lm4ve.tasks import task_of_config

#: Endings of files for predictions: of our table, of MMEngine's pickle.
_PREDICTIONS_ENDINGS = ('.csv', '.pkl', '.pickle')
#: Those of files for metrics, which MMEngine writes.
_METRICS_ENDINGS = ('.json', '.yaml', '.yml', '.pkl', '.pickle')


def use_tta(cfg: Config) -> None:
    """Change a config so that the model is tested with augmentation.

    The config's own ``tta_model`` and ``tta_pipeline`` are used; without them, those of
    its task, for images flips.

    Raises:
        UserError: Neither the config nor its task defines an augmentation.
    """
    fields = ('tta_model', 'tta_pipeline')
    missing = [field for field in fields if field not in cfg]
    if missing:
        task = task_of_config(cfg)
        if not task.tta_model:
            raise UserError(
                f'--tta needs {" and ".join(missing)} in a config for {task.title}.'
            )
        cfg.setdefault('tta_model', ConfigDict(type=task.tta_model))
        cfg.setdefault('tta_pipeline', _with_flips(cfg))
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def _with_flips(cfg: Config) -> list:
    """Return the config's test pipeline with an end that packs a picture flipped and as it is."""
    pipeline = deepcopy(cfg.test_dataloader.dataset.pipeline)
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    pack = pipeline[-1]
    pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [pack]])
    return pipeline


def show_predictions(cfg: Config, args: argparse.Namespace) -> None:
    """Switch on the config's hook that draws predictions, in a window or into a folder.

    Args:
        cfg (Config): The config, which is changed.
        args (Namespace): The flags of ``lm4ve test``.

    Raises:
        UserError: The config has no such hook.
    """
    if 'visualization' not in cfg.get('default_hooks', {}):
        raise UserError('--show and --show-dir need default_hooks.visualization.')
    hook = cfg.default_hooks.visualization
    hook.update(
        enable=True,
        interval=args.interval,
        show=args.show,
        wait_time=args.wait_time,
        out_dir=args.show_dir,
    )
    # mmpretrain writes into the picture; in small ones, it must be enlarged to be read.
    size = cfg.model.get('backbone', {}).get('img_size', 256)
    is_small = isinstance(size, int) and size <= 128
    if is_small and cfg.get('default_scope') == 'mmpretrain':
        hook.rescale_factor = 256 // size


def run(args: argparse.Namespace) -> None:
    """Test a checkpoint as the flags say, and print or write the metrics."""
    _check_out(args.out, args.out_item)
    cfg = final_config(args, set_flags, trains=False)
    if args.tta:
        use_tta(cfg)  # last, so that --cfg-options reach the model and not its wrapper
    runner = build_runner(cfg, short_console=not args.verbose)
    writes_metrics = args.out_item == 'metrics'
    if args.out and not writes_metrics:
        if args.out.endswith('.csv'):
            require_one_label(runner.test_dataloader.dataset, args.out)
        _write_predictions(runner.test_evaluator, args.out)
    metrics = runner.test()
    if args.out and writes_metrics and is_main_process():
        counts = count_samples(runner.test_dataloader.dataset)
        if counts is not None:
            metrics = {**metrics, **counts.as_metrics()}
        with replacing(args.out) as beside:
            mmengine.dump(_without_tensors(metrics), str(beside))


def set_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Change a config as the flags of a test say.

    Raises:
        UserError: The config lacks what a flag needs, or there is no such checkpoint.
    """
    evaluate_checkpoint(cfg, args.checkpoint, args.allow_partial, args.strict_config)
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        show_predictions(cfg, args)


def _check_out(out: str | None, item: str | None) -> None:
    """Check the file for the results before the test takes its time.

    Args:
        out (str, optional): The flag ``--out``.
        item (str, optional): The flag ``--out-item``. Default: predictions.

    Raises:
        UserError: The file cannot be written, or its name has no ending for its content.
    """
    if out is None:
        if item is not None:
            raise UserError('--out-item needs --out FILE.')
        return
    endings = _METRICS_ENDINGS if item == 'metrics' else _PREDICTIONS_ENDINGS
    check(f"--out='{out}': its ending", Path(out).suffix, choices=endings)
    require_writable(Path(out).parent, '--out')


def _write_predictions(evaluator: Evaluator, out: str) -> None:
    """Let an evaluator write the predictions of its test to a file of this name."""
    writer: BaseMetric
    if out.endswith('.csv'):
        writer = PredictionTable(out)
    else:
        writer = DumpResults(out_file_path=out)
    # The evaluator has given the classes' names to its other metrics already.
    writer.dataset_meta = evaluator.dataset_meta
    evaluator.metrics.append(writer)


def _without_tensors(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics with lists in the place of tensors, which JSON does not have."""
    plain = {}
    for name, value in metrics.items():
        plain[name] = value.tolist() if isinstance(value, Tensor) else value
    return plain
