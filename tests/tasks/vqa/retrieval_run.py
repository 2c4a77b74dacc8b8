"""Validate a tiny METER on tiny captioned images, in one process or several.

As a script, ``retrieval_run.py FOLDER OUT`` under torchrun: each process writes what it
measured to ``OUT.<rank>``.
"""

import json
import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

import lm4ve  # noqa: F401
from lm4ve.runner.command_line import finish_config
from tests.tasks.vqa import files, tiny

#: How many captions each image has. Prime and uneven: no number of processes divides it.
CAPTIONS = (2, 1, 3, 5, 1, 2, 4)
CONTRASTIVE = dict(channels=8)
#: What the script validates with, one after the other.
COARSE = (None, dict(top_k=2), dict(top_k=2, compare=True))


class Keep:
    """A metric that keeps what the loop gave it."""

    def __init__(self):
        self.samples, self.dataset_meta = [], None

    def process(self, data_batch, data_samples):
        self.samples += data_samples

    def evaluate(self, size):
        return {}


def write(folder: Path) -> Path:
    """Write images, captions of very different lengths, and a tokenizer."""
    rows, number = [], 0
    for image, count in enumerate(CAPTIONS):
        files.write_image(folder / f'{image}.png', seed=image, size=(40, 36))
        for _ in range(count):
            words = tiny.WORDS[number % 5 : number % 5 + 1 + number % 7]
            rows.append(dict(image=f'{image}.png', caption=' '.join([*words, tiny.WORDS[-1]])))
            number += 3
    files.write_csv(folder / 'captions.csv', rows)
    tiny.write_tokenizer(folder / 'tokenizer')
    return folder


def config(folder: Path, work_dir: Path, **loop) -> dict:
    """Return the arguments of a runner that validates and tests."""
    loop = dict(pairs_per_batch=9) | loop
    pipeline = [
        dict(type='mmpretrain.LoadImageFromFile'),
        dict(type='mmpretrain.ResizeEdge', scale=tiny.SIZE),
        dict(type='mmpretrain.CenterCrop', crop_size=tiny.SIZE),
        dict(type='lm4ve.PackVisionLanguage'),
    ]
    dataset = dict(
        type='lm4ve.CaptionFiles',
        ann_file='captions.csv',
        data_root=str(folder),
        pipeline=pipeline,
        test_mode=True,
        serialize_data=False,
    )
    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    head = dict(type='lm4ve.RetrievalHead', in_channels=32, contrastive=CONTRASTIVE)
    evaluator = dict(type='lm4ve.RetrievalRecall', ks=(1, 2, 3))
    return dict(
        model=tiny.meter_config(str(folder / 'tokenizer'), neck=True, head=head),
        work_dir=str(work_dir),
        val_dataloader=loader,
        val_cfg=dict(type='lm4ve.RetrievalValLoop', **loop),
        val_evaluator=evaluator,
        test_dataloader=loader,
        test_cfg=dict(type='lm4ve.RetrievalTestLoop', **loop),
        test_evaluator=evaluator,
        default_scope='mmpretrain',
        log_level='WARNING',
        randomness=dict(seed=0),
        experiment_name='retrieval',
    )


def runner_of(folder: Path, work_dir: Path, launcher: str = 'none', **loop) -> tuple[Runner, Keep]:
    """Return a runner whose model has weights of its own seed, and what its metric keeps."""
    import argparse

    from mmengine.config import Config

    cfg = Config(dict(config(folder, work_dir, **loop), launcher=launcher))
    cfg = finish_config(cfg, argparse.Namespace(no_pin_memory=True, cfg_options=None))
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    generator = torch.Generator().manual_seed(1)
    for parameter in runner.model.parameters():
        # Large enough for scores that differ.
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return runner, Keep()


def validate(folder: Path, work_dir: Path, launcher: str = 'none', **loop) -> tuple[dict, list]:
    """Return the metrics of a validation and what the loop gave to them."""
    runner, keep = runner_of(folder, work_dir, launcher, **loop)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    runner.val_evaluator.metrics.append(keep)
    return runner.val_loop.run(), keep.samples


if __name__ == '__main__':
    source, out = map(Path, sys.argv[1:])
    kept = []
    for number, coarse in enumerate(COARSE):
        work_dir = out.parent / f'work{number}'
        metrics, (sample,) = validate(source, work_dir, 'pytorch', coarse=coarse)
        scores = {k: v.tolist() for k, v in sample.items() if 'scores' in k}
        kept.append(dict(metrics=metrics, owner=sample['image_of_caption'].tolist(), **scores))
    Path(f'{out}.{get_rank()}').write_text(json.dumps(kept))
