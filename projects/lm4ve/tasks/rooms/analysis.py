"""SQA3D in the analysis of activations: tokens of objects in a room, and of words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from lm4ve.tasks.base.analysis import Layout, Rows, TaskAnalysis, Watched, safe_name
from lm4ve.tasks.base.language.words import words_of
from lm4ve.tasks.base.pictures import Picture
from lm4ve.tasks.rooms import TASK
from lm4ve.tasks.rooms.inference import RoomReader, read_texts
from lm4ve.tasks.rooms.models.language import split_words
from lm4ve.tasks.rooms.models.preprocessor import TEXTS

#: The key of the detected objects among the inputs of a batch.
_FOUND = 'found_objects'


class RoomLayout(Layout):
    """The places of objects or words: their number, or those of a joint sequence."""

    @property
    def num_placed(self) -> int:
        return sum(self.grid)

    @property
    def times(self) -> int:
        return 1


class RoomAnalysis(TaskAnalysis):
    """A room with a situation and a question: a token for each object and for each word."""

    def read_input(self, cfg: Config, path: Path, pipeline: list[dict], **options: Any) -> dict:
        """Read a room; ``situation`` and ``question`` are texts."""
        return RoomReader(cfg, pipeline)(path, read_texts(**options))

    # ----------------------------------------------------------------- where to look
    def further_points(self, model: nn.Module) -> dict[str, str]:
        """Look at the last layers of the fusion: objects without a neck, and words."""

        def last(name: str) -> str:
            return f'fusion.{name}_layers.{len(getattr(model.fusion, f"{name}_layers")) - 1}'

        points = dict(encoder=last('object_question'))
        if model.neck is None or model.tokens == 'visual':
            points |= {name: last(name) for name in TEXTS}
        return points

    def watched(self, model: nn.Module) -> list[Watched]:
        """Watch how much each object counts in what the answer is read from."""

        def read(pool: nn.Module, inputs: dict, arguments: Mapping[str, Any]) -> Rows:
            tokens, padding = arguments['tokens'], arguments['padding']
            weights = pool.weights(tokens, padding)[:, None]
            titles = [['weight in the answer']] * len(tokens)
            return Rows(weights, titles, self._layout(self._paddings(model, inputs)['objects']))

        return [Watched('pooling of objects', 'pools.objects', read, 'answer')]

    # ---------------------------------------------------------------- where tokens lie
    def layout(
        self, model: nn.Module, inputs: dict, count: int, grid: tuple[int, ...] | None = None
    ) -> Layout:
        """Find the places of tokens by their number: of objects, else of words."""
        layouts = [self._layout(p) for p in self._paddings(model, inputs).values()]
        return next((x for x in layouts if x.num_placed == count), layouts[0]).fitting(count)

    def layout_at(
        self,
        name: str,
        model: nn.Module,
        inputs: dict,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of a module's tokens by the module's name."""
        paddings = self._paddings(model, inputs)
        for text in TEXTS:
            if name.startswith(f'fusion.{text}_'):
                return self._layout(paddings[text]).fitting(count)
        if name.startswith('neck') and model.tokens == 'joint':
            return self._layout(*paddings.values()).fitting(count)
        if name.startswith(('fusion', 'neck', 'object_')):
            return self._layout(paddings['objects']).fitting(count)
        return self.layout(model, inputs, count)

    def _layout(self, *paddings: Tensor) -> RoomLayout:
        grid = tuple(p.shape[1] for p in paddings)
        return RoomLayout(self.task.name, 0, grid, torch.cat(paddings, dim=1))

    def _paddings(self, model: nn.Module, inputs: dict) -> dict[str, Tensor]:
        """Return the padding of objects, situation and question, bool ``[B, N]`` each."""
        padding = self._objects(model, inputs).padding
        # Where nothing is an object, the model reads all proposals.
        objects = padding & ~padding.all(dim=1, keepdim=True)
        return dict(objects=objects, **{name: inputs[f'{name}_padding'] for name in TEXTS})

    @torch.no_grad()
    def _objects(self, model: nn.Module, inputs: dict) -> Any:
        """Return the objects of a batch, detected again and kept beside the inputs."""
        if _FOUND not in inputs:
            inputs[_FOUND] = model.encode_objects(inputs)
        return inputs[_FOUND]

    # ------------------------------------------------------------ how a sample looks
    def pictures(
        self, model: nn.Module, inputs: dict, outputs: Sequence[Any], frames: int
    ) -> list[Picture]:
        """Return the room of each sample, with its objects and words."""
        from lm4ve.tasks.rooms.visualization import RoomPicture, room_of

        found = self._objects(model, inputs).detections
        points = raw_points(model, inputs)
        pictures = []
        for i, output in enumerate(outputs):
            room = None if points is None else room_of(points[i], output)
            places = None if found is None else found.centers[i].double().cpu().numpy()
            texts = zip(TEXTS, output.text, strict=True)
            words = {name: read_words(model, inputs, name, i, text) for name, text in texts}
            pictures.append(RoomPicture(room, places, words))
        return pictures

    def facts(self, output: Any, classes: Sequence[str] | None) -> dict[str, str]:
        """Return the question, the answer with its score, the truth and the situation."""
        situation, question = output.text
        percent = 100 * float(output.pred_scores.max())
        facts = dict(question=question, prediction=f'{output.pred_answer} ({percent:.1f} %)')
        if answers := output.get('gt_answers'):
            facts['truth'] = ', '.join(dict.fromkeys(answers))
        return dict(facts, situation=situation)

    def sample_name(self, output: Any, number: int) -> str:
        """Name a sample by its scene and its question."""
        scene, question = output.get('scene_id'), output.get('question_id')
        return safe_name('_'.join(str(x) for x in (scene, question) if x is not None) or 'room')


def raw_points(model: nn.Module, inputs: dict) -> Tensor | None:
    """Return points ``[B, P, 3 + F]`` with colors from 0 to 255 again, None without points."""
    points, columns = inputs.get('points'), model.data_preprocessor.color_columns
    if points is not None and columns:
        points = points.clone()
        points[..., columns] = points[..., columns] * 256 + model.data_preprocessor.color_mean
    return points


def read_words(model: nn.Module, inputs: dict, name: str, index: int, text: str) -> list[str]:
    """Return the words of a text as the model reads them, without padding."""
    padding = inputs[f'{name}_padding'][index]
    if model.data_preprocessor.tokenizer is not None:
        return words_of(model, inputs[name][index, None], padding[None])[0]
    return split_words(text)[: int((~padding).sum())]


ANALYSIS = RoomAnalysis(TASK)
