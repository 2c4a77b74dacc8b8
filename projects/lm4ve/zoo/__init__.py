"""Carry the configs (``.mim/``), so that other projects and mmpretrain find them.

``_base_ = 'lm4ve::lm4ve/vit-s_llama_in1k.py'`` reads a file below ``.mim/configs``, and
``mmpretrain.get_model('vit-s_llama_in1k')`` a model that the image metafile lists. The metafiles
of the other tasks are not registered there: mmpretrain cannot build their models.
"""

from pathlib import Path

#: The folder that holds ``configs`` and ``model-index.yml``.
MIM_FOLDER = Path(__file__).parent / '.mim'
