"""What the analysis of activations asks of SQA3D: objects in a room, and words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from lm4ve.tasks.base.analysis import Layout, Rows, TaskAnalysis, Watched, safe_name
from lm4ve.tasks.base.language.words import words_of
from lm4ve.tasks.rooms import TASK
from lm4ve.tasks.rooms.given import RoomReader, read_texts
from lm4ve.tasks.rooms.models.language import split_words
from lm4ve.tasks.rooms.models.model import TEXTS
from lm4ve.tasks.rooms.pictures import RoomPicture

#: Where the analysis keeps what was found in a batch, beside its inputs.
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
            return Rows(weights, titles, self._of_objects(model, inputs))

        return [Watched('pooling of objects', 'pools.objects', read, 'answer')]

    # ---------------------------------------------------------------- where tokens lie
    def layout(
        self, model: nn.Module, inputs: dict, count: int, grid: tuple[int, ...] | None = None
    ) -> Layout:
        """Find the places of tokens by their number: of objects, else of words."""
        objects = self._of_objects(model, inputs)
        words = (self._of_words(inputs, name) for name in TEXTS)
        fits = [x for x in (objects, *words) if x.num_placed == count]
        return fits[0] if fits else objects.fitting(count)

    def layout_at(
        self,
        name: str,
        model: nn.Module,
        inputs: dict,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Find the places of a module's tokens by the module's name."""
        for text in TEXTS:
            if name.startswith(f'fusion.{text}_'):
                return self._of_words(inputs, text).fitting(count)
        objects = self._of_objects(model, inputs)
        if name.startswith('neck') and model.tokens == 'joint':
            parts = [objects, *(self._of_words(inputs, text) for text in TEXTS)]
            padding = torch.cat([p.padding_mask for p in parts], dim=1)
            grid = tuple(p.num_placed for p in parts)
            return RoomLayout(self.task.name, 0, grid, padding).fitting(count)
        if name.startswith(('fusion', 'neck', 'object_')):
            return objects.fitting(count)
        return self.layout(model, inputs, count)

    def _of_words(self, inputs: dict, name: str) -> RoomLayout:
        padding = inputs[f'{name}_padding']
        return RoomLayout(self.task.name, 0, (padding.shape[1],), padding)

    def _of_objects(self, model: nn.Module, inputs: dict) -> RoomLayout:
        padding = self._objects(model, inputs).padding
        # Where nothing is an object, the model reads all proposals.
        padding = padding & ~padding.all(dim=1, keepdim=True)
        return RoomLayout(self.task.name, 0, (padding.shape[1],), padding)

    @torch.no_grad()
    def _objects(self, model: nn.Module, inputs: dict) -> Any:
        """The objects of a batch, found once more, since no tokens say which they are."""
        if _FOUND not in inputs:
            inputs[_FOUND] = model.encode_objects(inputs)
        return inputs[_FOUND]

    # ------------------------------------------------------------ how a sample looks
    def pictures(
        self, model: nn.Module, inputs: dict, outputs: Sequence[Any], frames: int
    ) -> list[RoomPicture]:
        found = self._objects(model, inputs).detections
        points = raw_points(model, inputs)
        pictures = []
        for i, output in enumerate(outputs):
            room = None
            if points is not None:
                from lm4ve.tasks.rooms.drawing import room_of

                room = room_of(points[i], output)
            places = None if found is None else found.centers[i].double().cpu().numpy()
            words = {
                name: read_words(model, inputs, name, i, text)
                for name, text in zip(TEXTS, output.get('text') or ['', ''], strict=True)
            }
            pictures.append(RoomPicture(room, places, words))
        return pictures

    def facts(self, output: Any, classes: Sequence[str] | None) -> dict[str, str]:
        """Say the question, the answer with its score, the truth and the situation."""
        situation, question = output.get('text') or ('', '')
        scores = output.get('pred_scores')
        answer = f'{output.get("pred_answer")} ({100 * float(scores.max()):.1f} %)'
        facts = dict(question=question, prediction=answer)
        if answers := output.get('gt_answers'):
            facts['truth'] = ', '.join(dict.fromkeys(answers))
        return dict(facts, situation=situation)

    def sample_name(self, output: Any, number: int) -> str:
        """Name a sample by its scene and its question."""
        scene, question = output.get('scene_id'), output.get('question_id')
        return safe_name('_'.join(str(x) for x in (scene, question) if x is not None) or 'room')


def raw_points(model: nn.Module, inputs: dict) -> Tensor | None:
    """Return points ``[B, P, 3 + F]`` with colors from 0 to 255 again, None without points."""
    points = inputs.get('points')
    preprocessor = model.data_preprocessor
    if points is None or preprocessor.color_columns is None:
        return points
    points = points.clone()
    columns = preprocessor.color_columns
    points[..., columns] = points[..., columns] * 256 + preprocessor.color_mean
    return points


def read_words(model: nn.Module, inputs: dict, name: str, index: int, text: str) -> list[str]:
    """Return the words of a text as the model reads them, without padding."""
    preprocessor = model.data_preprocessor
    rows = slice(index, index + 1)
    padding = inputs[f'{name}_padding'][rows]
    if preprocessor.tokenizer is not None:
        return words_of(model, inputs[name][rows], padding)[0]
    return split_words(text)[: int((~padding).sum())]


ANALYSIS = RoomAnalysis(TASK)
