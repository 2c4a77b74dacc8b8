"""Frozen encoders by name: of timm, transformers, torchvision, a package, or a config.

Each comes with its own transform, since an encoder's features of wrongly normalized
pictures are poor in silence. Features are those before any pooling and before the
classifier. A file of this folder builds the encoders of one library.
"""

from lm4ve.study.tokens.encoders.encoder import Encoder
from lm4ve.study.tokens.encoders.loading import load_encoder

__all__ = ['Encoder', 'load_encoder']
