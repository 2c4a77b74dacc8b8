"""``StoredObjects``: features that somebody's detector has computed are the tokens."""

from mmengine.model import BaseModule
from torch import Tensor

from lm4ve.errors import UserError
from lm4ve.registry import MODELS
from lm4ve.tasks.base.language.structures import VisionLanguageDataSample
from lm4ve.tasks.rooms.models.proposals import Objects


@MODELS.register_module()
class StoredObjects(BaseModule):
    """Take stored features of objects, ``[O, C]`` a scene, as they are.

    Args:
        in_channels (int): C.
        init_cfg (dict | list, optional): Passed to MMEngine's ``BaseModule``.

    Attributes:
        embed_dims (int): C.
        reads (str): 'objects'.

    The order of objects changes nothing. There is no loss of detection.
    """

    reads = 'objects'

    def __init__(self, in_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.embed_dims = in_channels

    def forward(self, objects: Tensor, padding: Tensor) -> Objects:
        """Wrap features.

        Args:
            objects (Tensor): ``[B, O, C]``.
            padding (Tensor): bool ``[B, O]``, True = padding.

        Raises:
            UserError: The features have another width.
        """
        if objects.shape[-1] != self.embed_dims:
            raise UserError(
                f'Stored objects have {objects.shape[-1]} channels, not {self.embed_dims}.'
            )
        return Objects(objects, padding)

    def loss(
        self, objects: Objects, data_samples: list[VisionLanguageDataSample]
    ) -> dict[str, Tensor]:
        """Nothing was detected, so there is nothing to compare."""
        return {}

    def predict(
        self, objects: Objects, data_samples: list[VisionLanguageDataSample]
    ) -> list[VisionLanguageDataSample]:
        """Return the samples as they are."""
        return data_samples
