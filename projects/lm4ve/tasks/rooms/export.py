"""SQA3D is released as weights; its loops over points are not traced."""

from typing import Any

from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.tasks.base.export import TaskExport
from lm4ve.tasks.rooms import TASK


class RoomExport(TaskExport):
    """Weights of models of rooms (``--format safetensors``); no traced function."""

    def samples(
        self, cfg: Config, count: int, pipeline: list[dict] | None = None
    ) -> list[dict]:
        raise UserError('Models of rooms are not traced. Fix: --format safetensors.')

    def meaning(self, model: Any, cfg: Config) -> dict[str, Any]:
        if model.data_preprocessor.tokenizer is None:
            return {}
        return dict(
            tokenizer=model.data_preprocessor.describe(), answers=model.head.vocabulary
        )


EXPORT = RoomExport(TASK)
