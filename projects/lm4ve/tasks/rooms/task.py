"""What the package asks of rooms: reads, makes up, describes and places objects and words."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from lm4ve.draw.file_names import safe_name
from lm4ve.draw.pictures import Picture
from lm4ve.errors import UserError
from lm4ve.tasks.base.layouts import Layout, Rows, Watched
from lm4ve.tasks.base.protocol import TaskProtocol
from lm4ve.tasks.rooms import TASK
from lm4ve.tasks.rooms.datasets.scannet import CLASSES
from lm4ve.tasks.rooms.inference import RoomReader
from lm4ve.tasks.rooms.models.language import split_words
from lm4ve.tasks.rooms.models.model import mask_of_objects
from lm4ve.tasks.rooms.models.objects import Objects
from lm4ve.tasks.rooms.models.preprocessor import TEXTS
from lm4ve.tasks.rooms.visualization import RoomPicture
from lm4ve.text.preprocessor import PlaceholderTokenizer
from lm4ve.text.structures import VisionLanguageDataSample
from lm4ve.text.words import list_texts, words_of

#: Words of a made-up text.
WORDS = 20
#: Answers of SQA3D's training set.
ANSWERS = 706
#: Points of a scanned room, and boxes in it.
POINTS = 40_000
BOXES = 16
#: Stored objects of a room.
OBJECTS = 256


class RoomProtocol(TaskProtocol):
    """A room with a situation and a question: a token for each object and for each word."""

    def read(
        self, source: Any, cfg: Config, pipeline: list[dict], **options: Any
    ) -> dict:
        """Read a room; ``situation`` and ``question`` are texts."""
        texts = []
        for name in TEXTS:
            text, *_ = list_texts(options.get(name, ''), f'--{name}')
            texts.append(text)
        return RoomReader(pipeline)(dict(room=source, text=texts, sample_idx=0))

    def example(self, cfg: Config, number: int = 0, training: bool = False) -> dict:
        """Return an empty room of full size, or its stored objects, with all annotations.

        It is not sent through a pipeline, and all are alike.
        """
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

    def imagine(self, model: Any) -> None:
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

    # ----------------------------------------------------------------- where to look
    def further_points(self, model: Any) -> dict[str, str]:
        """Look at the last layers of the fusion: objects without a neck, and words."""
        last = len(model.fusion.situation_layers) - 1
        points = dict(encoder=f'fusion.object_question_layers.{last}')
        if model.neck is None or model.tokens == 'visual':
            for text in TEXTS:
                points[text] = f'fusion.{text}_layers.{last}'
        return points

    def watched(self, model: nn.Module) -> list[Watched]:
        """Watch how much each object counts in what the answer is read from."""

        def read(pool: Any, inputs: dict, arguments: Mapping[str, Any]) -> Rows:
            weights = pool.weights(arguments['tokens'], arguments['padding'])
            titles = [['weight in the answer']] * len(weights)
            objects = self._paddings(model, inputs)['objects']
            return Rows(weights[:, None], titles, self._layout(objects))

        return [Watched('pooling of objects', 'pools.objects', read, 'answer')]

    # ---------------------------------------------------------------- where tokens lie
    def layout(
        self,
        name: str,
        model: nn.Module,
        inputs: dict,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of a module's tokens by the module's name, else by their number."""
        paddings = self._paddings(model, inputs)
        for text in TEXTS:
            if name.startswith(f'fusion.{text}_'):
                return self._layout(paddings[text]).fitting(count)
        if name.startswith('neck') and model.tokens == 'joint':
            return self._layout(*paddings.values()).fitting(count)
        for padding in paddings.values():
            if padding.shape[1] == count:
                return self._layout(padding).fitting(count)
        return self._layout(paddings['objects']).fitting(count)

    def _layout(self, *paddings: Tensor) -> Layout:
        """Return the layout of tokens in a row, those of several sequences one after another."""
        padding = torch.cat(paddings, dim=1)
        return Layout(self.task.name, 0, (padding.shape[1],), padding)

    def _paddings(self, model: nn.Module, inputs: dict) -> dict[str, Tensor]:
        """Return the padding of objects, situation and question, bool ``[B, N]`` each."""
        paddings = {'objects': mask_of_objects(self._objects(model, inputs).padding)}
        for name in TEXTS:
            paddings[name] = inputs[f'{name}_padding']
        return paddings

    @torch.no_grad()
    def _objects(self, model: Any, inputs: dict) -> Any:
        """Return the objects of a batch, detected again and kept beside the inputs."""
        if 'found_objects' not in inputs:
            inputs['found_objects'] = model.encode_objects(inputs)
        return inputs['found_objects']

    # ------------------------------------------------------------ how a sample looks
    def pictures(
        self, model: Any, inputs: dict, outputs: Sequence[Any], frames: int
    ) -> list[Picture]:
        """Return the room of each sample, with its objects and words."""
        places = places_of(self._objects(model, inputs))
        rooms: Any = [None] * len(outputs)
        if inputs.get('points') is not None:
            points = model.data_preprocessor.restore_colors(inputs['points'])
            rooms = points.cpu().numpy()
        pictures: list[Picture] = []
        for i, output in enumerate(outputs):
            words = {}
            for name, text in zip(TEXTS, output.text, strict=True):
                words[name] = read_words(model, inputs, name, i, text)
            pictures.append(RoomPicture(rooms[i], output, places[i], words))
        return pictures

    def describe(
        self, output: Any, classes: Sequence[str] | None, evaluator: Any
    ) -> dict[str, str]:
        """Return the question, the answer with its score, the truth and the situation."""
        situation, question = output.text
        percent = 100 * float(output.pred_scores.max())
        facts = {
            'question': question,
            'prediction': f'{output.pred_answer} ({percent:.1f} %)',
        }
        answers = output.get('gt_answers')
        if answers:
            facts['truth'] = ', '.join(dict.fromkeys(answers))
        facts['situation'] = situation
        return facts

    def sample_name(self, output: Any, number: int) -> str:
        """Name a sample by its scene and its question."""
        question = output.get('question_id', number)
        return safe_name(f'{output.get("scene_id")}_{question}')

    # ------------------------------------------------------- the model as a function
    def tensors(self, model: nn.Module, data: Any) -> tuple[Tensor, ...]:
        raise UserError('Models of rooms are not traced. Fix: --format safetensors.')

    def meaning(self, model: Any, cfg: Config) -> dict[str, Any]:
        if model.data_preprocessor.tokenizer is None:
            return {}
        return dict(
            tokenizer=model.data_preprocessor.describe(), answers=model.head.vocabulary
        )


def places_of(objects: Objects) -> np.ndarray:
    """Return where objects are seen from above, float64 ``[B, K, 2]`` in meters.

    Stored features have no known places: they stand in rows of 16, in the order of the
    file.
    """
    if objects.detections is not None:
        return objects.detections.centers[..., :2].double().cpu().numpy()
    samples, count, _ = objects.tokens.shape
    number = np.arange(count)
    grid = np.stack((number % 16, -(number // 16)), axis=1)
    return np.broadcast_to(grid, (samples, count, 2))


def read_words(model: Any, inputs: dict, name: str, index: int, text: str) -> list[str]:
    """Return the words of a text as the model reads them, without padding."""
    padding = inputs[f'{name}_padding'][index]
    if model.data_preprocessor.tokenizer is None:
        count = int((~padding).sum())
        return split_words(text)[:count]
    (words,) = words_of(model, inputs[name][index, None], padding[None])
    return words


PROTOCOL = RoomProtocol(TASK)
