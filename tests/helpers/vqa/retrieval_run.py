"""Validate a tiny METER on tiny captioned images, in one process or several.

As a script, ``retrieval_run.py FOLDER OUT`` under torchrun: each process writes what it
measured to ``OUT.<rank>``.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.runner import Runner

from lm4ve.runner.command_line import finish_config
from lm4ve.runner.without_gpu import join_group
from tests.helpers.vqa import files, tiny

#: How many captions each image has. Prime and uneven: no number of processes divides
#: it.
CAPTIONS = (2, 1, 3, 5, 1, 2, 4)


def write(folder: Path) -> Path:
    """Write images, captions of very different lengths, and a config with its tokenizer."""
    rows = []
    for image, count in enumerate(CAPTIONS):
        file = folder / f'{image}.png'
        files.write_image(file, seed=image, size=(40, 36))
        for _ in range(count):
            rows.append(dict(image=file.name, caption=_caption(len(rows))))
    files.write_csv(folder / 'captions.csv', rows)
    tokenizer = tiny.write_tokenizer(folder / 'tokenizer')
    tiny.write_config(folder / 'c.py', tokenizer, head=tiny.HEADS['retrieval'])
    return folder


def _caption(number: int) -> str:
    """Return a caption of one to eight words."""
    begin = 3 * number % 5
    count = 1 + 3 * number % 7
    words = tiny.WORDS[begin : begin + count]
    return ' '.join([*words, tiny.WORDS[-1]])


def runner_of(folder: Path, work_dir: Path, launcher: str = 'none', **loop) -> Runner:
    """Return a runner that validates and tests, whose model has weights of its own seed."""
    cfg = Config.fromfile(folder / 'c.py')
    dataset = dict(
        cfg.test_dataloader.dataset,
        type='lm4ve.CaptionFiles',
        ann_file='captions.csv',
        data_root=str(folder),
        test_mode=True,
        serialize_data=False,
    )
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    loop = dict(pairs_per_batch=9) | loop
    evaluator = dict(type='lm4ve.RetrievalRecall', ks=(1, 2, 3))
    cfg.update(
        val_dataloader=loader,
        val_evaluator=evaluator,
        val_cfg=dict(type='lm4ve.RetrievalValLoop', **loop),
        test_dataloader=loader,
        test_evaluator=evaluator,
        test_cfg=dict(type='lm4ve.RetrievalTestLoop', **loop),
        work_dir=str(work_dir),
        launcher=launcher,
        default_scope='mmpretrain',
        log_level='WARNING',
        randomness=dict(seed=0),
        experiment_name='retrieval',
    )
    cfg = finish_config(cfg, argparse.Namespace(no_pin_memory=True, cfg_options=None))
    join_group(cfg)
    runner = Runner.from_cfg(cfg)
    generator = torch.Generator().manual_seed(1)
    for parameter in runner.model.parameters():
        # Large enough for scores that differ.
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    return runner


def validate(
    folder: Path, work_dir: Path, launcher: str = 'none', **loop
) -> tuple[dict, list]:
    """Return the metrics of a validation and what the loop gave to them."""
    runner = runner_of(folder, work_dir, launcher, **loop)
    (metric,) = runner.val_evaluator.metrics
    process = metric.process
    given = []

    def process_and_keep(data_batch, data_samples):
        given.extend(data_samples)
        process(data_batch, data_samples)

    metric.process = process_and_keep
    return runner.val_loop.run(), given


if __name__ == '__main__':
    source, out = [Path(word) for word in sys.argv[1:]]
    metrics, (sample,) = validate(source, out.parent / 'run', 'pytorch')
    result = dict(
        metrics=metrics,
        owner=sample['image_of_caption'].tolist(),
        scores=sample['scores'].tolist(),
    )
    Path(f'{out}.{get_rank()}').write_text(json.dumps(result))
