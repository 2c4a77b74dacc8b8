"""Question answering in scanned rooms (SQA3D): everything that is its own."""

from lm4ve.tasks.base.task import Task

TASK = Task(
    name='rooms',
    title='question answering in scanned rooms',
    package=__name__,
    extra='rooms',
    models=('lm4ve.tasks.rooms.models.model.SQA3D',),
    registers={
        'datasets.rooms': ('Rooms',),
        'datasets.sqa3d': ('SQA3DDataset',),
        'metrics': ('SQA3DAccuracy',),
        'models.fusion': ('GuidedFusion',),
        'models.heads': ('PoseHead', 'SceneAnswerHead'),
        'models.language': ('LSTMTextEncoder',),
        'models.model': ('SQA3D',),
        'models.preprocessor': ('SQA3DPreprocessor',),
        'models.objects': ('StoredObjects',),
        'models.votenet': ('VoteNet',),
        'optim': ('BatchNormMomentumHook',),
        'transforms': (
            'AugmentScene',
            'LoadObjects',
            'LoadScene',
            'PackScene',
            'SampleScenePoints',
        ),
    },
    exports={'inference': ('RoomInferencer',)},
    inferencer='lm4ve.tasks.rooms.inference.RoomInferencer',
    input_noun='a room',
    input_suffixes=('.npy', '.ply'),
    input_options={
        'question': 'the question that the model answers about the room',
        'situation': 'where the asker of the question stands and looks (SQA3D)',
    },
)

# Editors and type checkers read these names in __init__.pyi. The documentation's parser
# takes a call here, and warns of an attribute.
__getattr__ = TASK.attribute
__all__ = list(TASK.names)


def __dir__() -> list[str]:
    return TASK.names
