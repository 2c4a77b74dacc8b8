"""A batch of SQA3D of full size, without a data set, for the cost of a training step."""

from types import MappingProxyType
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from lm4ve.tasks.base.batches import TaskBatches
from lm4ve.tasks.rooms import TASK
from lm4ve.tasks.rooms.datasets.scannet import CLASSES
from lm4ve.text.preprocessor import PlaceholderTokenizer
from lm4ve.text.structures import VisionLanguageDataSample

#: Tokens of a text.
WORDS = 20
#: Answers of SQA3D's training set.
ANSWERS = 706
#: Points of a scanned room, and boxes in it.
POINTS = 40_000
BOXES = 16
#: Stored objects of a room.
OBJECTS = 256


class RoomBatches(TaskBatches):
    """Makes rooms of :data:`POINTS` points, or of stored objects, with two texts each."""

    def imagine(self, model: ConfigDict) -> None:
        preprocessor = model.data_preprocessor
        if preprocessor.get('tokenizer') is not None:
            config = model.text_encoder.get('config') or {}
            pad_token_id = config.get('pad_token_id', 0)
            preprocessor.tokenizer = PlaceholderTokenizer(pad_token_id)
        else:
            vector = [0.0] * model.text_encoder.get('in_channels', 300)
            preprocessor.word_vectors = MappingProxyType(dict(unk=vector))
        if isinstance(model.head.answers, str):
            model.head.answers = [f'answer {i}' for i in range(ANSWERS)]
        if isinstance(model.object_encoder.get('mean_sizes'), str):
            model.object_encoder.mean_sizes = [[1.0, 1.0, 1.0]] * len(CLASSES)

    def sample(self, cfg: Config, training: bool) -> dict[str, Any]:
        """Return a scanned room, or its stored objects, with all annotations."""
        encoder = cfg.model.object_encoder
        text = ' '.join(['word'] * WORDS)
        meta = dict(text=[text, text], gt_answers=[], scene_id='made up')
        sample = VisionLanguageDataSample(metainfo=meta, gt_pose=torch.zeros(7))
        if encoder.type.endswith('StoredObjects'):
            inputs = dict(objects=torch.zeros(OBJECTS, encoder.in_channels))
        else:
            columns = 3 + encoder.get('in_channels', 4)
            inputs = dict(points=torch.zeros(POINTS, columns))
            sample.gt_boxes = torch.ones(BOXES, 6)
            sample.gt_labels = torch.zeros(BOXES, dtype=torch.int64)
            sample.gt_votes = torch.zeros(POINTS, 3)
            sample.gt_vote_mask = torch.ones(POINTS, dtype=torch.bool)
        return dict(inputs=inputs, data_samples=sample)


BATCHES = RoomBatches(TASK)
