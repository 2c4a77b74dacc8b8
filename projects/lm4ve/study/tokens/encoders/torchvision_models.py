"""Encoders of torchvision."""

from typing import Any

from lm4ve.runner.checkpoint_files import load_strictly
from lm4ve.study.tokens.encoders.encoder import EncoderParts, FrozenModel

#: The names that torchvision's models give to the pooling before their classifier, and to
#: no pooling within the network.
_POOLINGS = ('avgpool', 'adaptive_avg_pool2d')


def load_torchvision(name: str, is_published: bool, size: int | None) -> EncoderParts:
    """Build a model of torchvision; its features are the input of its pooling, or ViT's tokens.

    Args:
        name (str): torchvision's name of it.
        is_published (bool): Load the published weights.
        size (int, optional): Pixels a side. Default: that of the weights' transform.
    """
    from torchvision.models import get_model, get_model_weights
    from torchvision.models.feature_extraction import create_feature_extractor

    weights = get_model_weights(name).DEFAULT
    model = get_model(name, weights=None).eval()
    if is_published:
        content = weights.get_state_dict(
            map_location='cpu', check_hash=True, weights_only=True
        )
        load_strictly(model, content, f"'{name}'")
    if hasattr(model, 'transform_input'):
        # Inception's weights expect pixels that are normalized differently.
        model.transform_input = True
    # The extractor shares its parameters with the model, and has buffers of its own.
    extractor = create_feature_extractor(model, {_last_node(model): 'features'})

    def run(_: Any, pictures: Any) -> Any:
        # It is no part of the module, whose move leaves these buffers where they are.
        extractor.to(pictures.device)
        return extractor(pictures)['features']

    sizes = {}
    if size is not None:
        sizes = dict(crop_size=size, resize_size=size)
    transform = weights.transforms(**sizes)
    return EncoderParts(
        module=FrozenModel(model, run),
        transform=transform,
        facts=f'{name}{transform!r}',
        prefix=1 if hasattr(model, 'class_token') else 0,
    )


def _last_node(model: Any) -> str:
    """Return the name of the node of a model's graph whose output is the features.

    It is the node before the pooling that precedes the classifier. A model without such
    a pooling is taken for a vision transformer, whose encoder ends with a norm.
    """
    from torchvision.models.feature_extraction import get_graph_node_names

    _, names = get_graph_node_names(model)
    for i, name in enumerate(names):
        if name in _POOLINGS:
            return names[i - 1]
    return 'encoder.ln'
