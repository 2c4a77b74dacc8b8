"""Visual question answering and image-text retrieval with METER: everything that is its own."""

from lm4ve.data.suffixes import IMAGE_SUFFIXES
from lm4ve.tasks.base.task import Task

TASK = Task(
    name='vqa',
    title='visual question answering and retrieval',
    package=__name__,
    extra='vqa',
    models=('lm4ve.tasks.vqa.models.meter.METER',),
    registers={
        'datasets.digit_scenes': ('DigitScenes', 'DigitScenesVQA'),
        'datasets.easy_vqa': ('EasyVQA',),
        'datasets.retrieval': ('CaptionFiles', 'KarpathyRetrieval'),
        'datasets.vqa': ('AskFirstHook', 'VQAFiles', 'VQAv2', 'VisualGenomeQA'),
        'loops': ('RetrievalTestLoop', 'RetrievalValLoop'),
        'metrics': ('RetrievalRecall', 'VQAAccuracy'),
        'models.encoders': (
            'ConvStem',
            'TimmImageEncoder',
            'TransformersImageEncoder',
            'TransformersTextEncoder',
        ),
        'models.fusion': ('CoAttentionFusion',),
        'models.heads': ('MatchingHead', 'RetrievalHead', 'VQAHead'),
        'models.meter': ('METER',),
        'models.preprocessor': ('VisionLanguagePreprocessor',),
        'optim': ('METEROptimWrapperConstructor',),
        'transforms': (
            'BlankImage',
            'PackVisionLanguage',
            'SolarizeAdd',
            'TranslateByPixels',
        ),
        'visualization': (
            'VisionLanguageVisualizationHook',
            'VisionLanguageVisualizer',
        ),
    },
    exports={
        'datasets.image_text': ('ImageTextDataset',),
        'datasets.retrieval': ('CaptionDataset',),
        'datasets.vqa': ('VQADataset',),
        'inference': ('RetrievalInferencer', 'VQAInferencer'),
        'metrics': ('recall_at', 'vqa_accuracy'),
    },
    inferencer='lm4ve.tasks.vqa.inference.inferencer_of',
    input_noun='an image',
    input_suffixes=IMAGE_SUFFIXES,
    input_options={
        'question': 'what a model that answers questions is asked about the image',
        'caption': 'what a model of retrieval compares with the image; | between several captions',
    },
)

# Editors and type checkers read these names in __init__.pyi. The documentation's parser
# takes a call here, and warns of an attribute.
__getattr__ = TASK.attribute
__all__ = list(TASK.names)


def __dir__() -> list[str]:
    return TASK.names
