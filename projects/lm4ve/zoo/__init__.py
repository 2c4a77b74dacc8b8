"""Carry the configs (``.mim/``), so that other projects and mmpretrain find them.

``_base_ = 'lm4ve::lm4ve/vit-s_llama_in1k.py'`` reads a file below ``.mim/configs``, and
``mmpretrain.get_model('vit-s_llama_in1k')`` a model that the image metafile lists.
"""

from pathlib import Path
from types import ModuleType

#: The folder that holds ``configs`` and ``model-index.yml``.
MIM_FOLDER = Path(__file__).parent / '.mim'


def add_to_mmpretrain(model: ModuleType) -> None:
    """Make the image models known to ``mmpretrain.get_model`` and ``list_models``.

    mmpretrain cannot build the models of the other tasks, so their metafiles, which
    ``model-index.yml`` lists too, are left out.

    Args:
        model (ModuleType): ``mmpretrain.apis.model``.
    """
    metafile = MIM_FOLDER / 'configs' / 'lm4ve' / 'metafile.yml'
    model.ModelHub.register_model_index(metafile, config_prefix=MIM_FOLDER)
