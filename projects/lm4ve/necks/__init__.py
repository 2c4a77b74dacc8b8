"""Necks that put blocks into encoders; independent of host frameworks."""

from lm4ve import compat
from lm4ve.necks.llm_block_insert import LLMBlockInsert
from lm4ve.necks.neck import LLMBlockNeck

compat.register(
    'mmpretrain.models.classifiers.image',
    'mmpretrain.models.classifiers.image:ImageClassifier.__init__',
    'lm4ve.necks.joining:load_plain_encoders',
    waits=False,
)
compat.register(
    'mmaction.models.recognizers.base',
    'mmaction.models.recognizers.base:BaseRecognizer.__init__',
    'lm4ve.necks.joining:load_plain_encoders',
    waits=False,
)

__all__ = ['LLMBlockInsert', 'LLMBlockNeck']
