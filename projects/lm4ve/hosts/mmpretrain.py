"""What mmpretrain needs beyond the neck, which its classifiers take as it is."""
from mmpretrain.apis.model import ModelHub
from mmpretrain.models import ConvNeXt
from torch import nn

from lm4ve import image  # noqa: F401  (its classes register)
from lm4ve.registry import MODELS
from lm4ve.zoo import MIM_FOLDER


@MODELS.register_module()
class RawConvNeXt(ConvNeXt):
    """ConvNeXt whose output maps are not normed.

    mmpretrain's ConvNeXt always norms (and by default pools) its last map; the
    block's place is before that norm, which the neck then applies
    (``out_type='avg_featmap'`` pools first, as ConvNeXt does). The norm's
    weights ``norm{i}`` of a checkpoint become the neck's.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gap_before_final_norm = False
        for i in self.out_indices:
            setattr(self, f'norm{i}', nn.Identity())


def _register_models() -> None:
    """Make our names known to ``mmpretrain.get_model``."""
    index = MIM_FOLDER / 'model-index.yml'
    if not hasattr(ModelHub, '_models_dict'):
        return  # another version's hub: get_model still takes config paths
    before = set(ModelHub._models_dict)
    ModelHub.register_model_index(index, config_prefix=MIM_FOLDER)
    for name in set(ModelHub._models_dict) - before:
        # One metafile lists every task's configs; mmpretrain builds images'.
        tasks = {r.task for r in ModelHub._models_dict[name].results or ()}
        if 'Image Classification' not in tasks:
            del ModelHub._models_dict[name]


_register_models()
