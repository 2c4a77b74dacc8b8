"""Visual question answering and image-text retrieval with METER: everything that is its own."""

from lm4ve.tasks.task import Task

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')

TASK = Task(
    name='vision_language',
    title='visual question answering and retrieval',
    package=__name__,
    extra='vision-language',
    models=(
        'lm4ve.tasks.vision_language.models.meter.METER',
        'lm4ve.tasks.vision_language.sqa3d.models.model.SQA3D',
    ),
    registers={
        'datasets.question_groups': ('AskFirstHook',),
        'datasets.retrieval': ('CaptionFiles', 'KarpathyRetrieval'),
        'datasets.visual_genome': ('VisualGenomeQA',),
        'datasets.vqa': ('VQAFiles', 'VQAv2'),
        'demo.digit_scenes_dataset': ('DigitScenes', 'DigitScenesVQA'),
        'demo.easy_vqa': ('BlankImage', 'EasyVQA'),
        'loops': ('RetrievalTestLoop', 'RetrievalValLoop'),
        'metrics': ('RetrievalRecall', 'VQAAccuracy'),
        'models.conv_stem': ('ConvStem',),
        'models.encoders': (
            'TimmImageEncoder',
            'TransformersImageEncoder',
            'TransformersTextEncoder',
        ),
        'models.fusion': ('CoAttentionFusion',),
        'models.heads': ('MatchingHead', 'RetrievalHead', 'VQAHead'),
        'models.meter': ('METER',),
        'models.preprocessor': ('VisionLanguagePreprocessor',),
        'optim': ('METEROptimWrapperConstructor',),
        'sqa3d.datasets.sqa3d': ('SQA3DDataset',),
        'sqa3d.demo.room_files': ('Rooms',),
        'sqa3d.metrics': ('SQA3DAccuracy',),
        'sqa3d.models.fusion': ('GuidedFusion',),
        'sqa3d.models.heads': ('PoseHead', 'SceneAnswerHead'),
        'sqa3d.models.language': ('LSTMTextEncoder',),
        'sqa3d.models.model': ('SQA3D',),
        'sqa3d.models.preprocessor': ('SQA3DPreprocessor',),
        'sqa3d.models.stored_objects': ('StoredObjects',),
        'sqa3d.models.votenet': ('VoteNet',),
        'sqa3d.transforms': (
            'AugmentScene',
            'BlankScene',
            'LoadObjects',
            'LoadScene',
            'PackScene',
            'SampleScenePoints',
        ),
        'transforms': ('PackVisionLanguage',),
        'visualization': ('VisionLanguageVisualizationHook', 'VisionLanguageVisualizer'),
    },
    exports={
        'datasets.image_text': ('ImageTextDataset',),
        'datasets.retrieval': ('CaptionDataset',),
        'datasets.vqa': ('VQADataset',),
        'inference': ('RetrievalInferencer', 'VQAInferencer'),
        'sqa3d.inference': ('RoomInferencer',),
        'metrics': ('recall_at', 'vqa_accuracy'),
        'structures': ('VisionLanguageDataSample',),
    },
    inferencer='lm4ve.tasks.vision_language.inference.TextInferencer',
    input_noun='an image, or of SQA3D a room',
    input_suffixes=(*IMAGE_SUFFIXES, '.npy', '.npz', '.ply'),
    input_options={
        'question': 'what a model that answers questions is asked about the image or the room',
        'situation': 'what a model of SQA3D is told of who asks, and where',
        'caption': 'what a model of retrieval compares with the image; | between several captions',
    },
)

__all__ = TASK.public_names
__getattr__ = TASK.attribute
