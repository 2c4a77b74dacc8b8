"""A block in any ``nn.Module``, and the files that hold what was trained of it.

A model of timm, torchvision, ``transformers`` or one's own needs no config and no runner::

    lm4ve.wrap(model, after='blocks.11', block='package:all-MiniLM-L6-v2')
    ...  # train it with whatever trains models
    lm4ve.save_pretrained(model, 'folder')
    lm4ve.from_pretrained(another, 'folder')
"""

from lm4ve.any_model.pretrained import from_pretrained, save_pretrained
from lm4ve.any_model.wrapping import wrap

__all__ = ['from_pretrained', 'save_pretrained', 'wrap']
