"""What is made small in a config of SQA3D on ScanNet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.config import ConfigDict

from lm4ve.tasks.rooms.scannet import CLASSES
from tests.tasks.rooms.scenes import write_sqa3d
from tests.tasks.rooms.tiny import VECTORS, VOTENET

#: A shrinker's ``written``: a name and a function that writes to it.
Written = Callable[[str, Callable[[Path], object]], str]


def write_vectors(path: Path) -> None:
    """Write vectors of a few words, as GloVe is converted."""
    np.savez(path, words=list(VECTORS), vectors=np.array(list(VECTORS.values()), dtype='f4'))


def write_mean_sizes(path: Path) -> None:
    """Write the mean sizes of boxes, as ScanRefer has them."""
    np.savez(path, np.random.default_rng(0).uniform(0.5, 2, (len(CLASSES), 3)))


def scannet(written: Written) -> str:
    """Return a folder with everything of ScanNet and SQA3D."""
    return written('scannet', write_sqa3d)


def shrink_model(model: ConfigDict, written: Written) -> int:
    """Shrink the model but for its block; return the width of its tokens."""
    model.data_preprocessor.word_vectors = written('glove.npz', write_vectors)
    means = written('scannet_reference_means.npz', write_mean_sizes)
    small = {k: v for k, v in VOTENET.items() if k not in ('type', 'in_channels')}
    model.object_encoder.update(small, mean_sizes=means)
    model.text_encoder.update(in_channels=5, channels=16)
    model.fusion.update(embed_dims=16, num_heads=2)
    model.pool.update(hidden_channels=9, out_channels=12)
    answers = f'{scannet(written)}/qa/answer_counter.json'
    model.head.update(answers=answers, in_channels=36, hidden_channels=16)
    if model.pose_head is not None:
        model.pose_head.update(in_channels=24, hidden_channels=16)
    return 16


def shrink_dataset(dataset: ConfigDict, written: Written) -> None:
    """Point a data set at two rooms with sixty points."""
    dataset.data_root = scannet(written)
    if 'answers' in dataset:
        dataset.answers = f'{dataset.data_root}/qa/answer_counter.json'
    for step in dataset.pipeline:
        if step.type == 'lm4ve.SampleScenePoints':
            step.num = 40
