"""``StoredObjects``: the tokens are features that an external detector has computed."""

from mmengine.model import BaseModule
from torch import Tensor

from lm4ve.errors import check
from lm4ve.registry import MODELS
from lm4ve.tasks.rooms.models.proposals import Objects, Samples


@MODELS.register_module()
class StoredObjects(BaseModule):
    """Uses stored features of objects, ``[O, C]`` a scene, as tokens.

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
        check('model.object_encoder.in_channels', self.embed_dims, choices=(objects.shape[-1],))
        return Objects(objects, padding)

    def loss(self, objects: Objects, data_samples: Samples) -> dict[str, Tensor]:
        """Return no loss, since nothing is detected."""
        return {}

    def predict(self, objects: Objects, data_samples: Samples) -> Samples:
        """Return the samples as they are."""
        return data_samples
