"""Motion forecasting: Argoverse 1 and 2, VectorNet, mmTransformer, RealMotion, metrics."""

from lm4ve.tasks.base.task import Task

TASK = Task(
    name='motion',
    title='motion forecasting',
    package=__name__,
    extra='motion',
    models=(
        'lm4ve.tasks.motion.models.forecaster.MotionForecaster',
        'lm4ve.tasks.motion.models.stream_forecaster.StreamForecaster',
    ),
    registers={
        'datasets.cache': ('MotionDataset',),
        'datasets.traffic_files': ('TrafficDataset',),
        'metrics': ('MotionMetric',),
        'models.forecaster': ('MotionForecaster',),
        'models.mmtransformer': ('MMTransformer', 'ProposalDecoder'),
        'models.realmotion': ('RealMotion', 'RealMotionDecoder'),
        'models.stream_forecaster': ('StreamForecaster',),
        'models.vectornet': ('TrajectoryDecoder', 'VectorNet'),
        'transforms.sub_scenes': (
            'EstimateMotion',
            'VectorizeSubScenes',
            'collate_sub_scenes',
        ),
        'transforms.scenes': (
            'FlipScene',
            'MaskHistory',
            'VectorizeScene',
            'collate_scenes',
        ),
        'visualization': ('MotionVisualizationHook', 'MotionVisualizer'),
    },
    exports={
        'datasets.argoverse': ('Argoverse1Reader', 'Argoverse2Reader'),
        'datasets.cache': ('SceneCache', 'preprocess_split'),
        'metrics': ('forecast_metrics',),
        'structures': ('Scene', 'SceneError'),
    },
    input_noun='a traffic scene',
    input_suffixes=('.csv', '.parquet'),
    input_options={
        'map_dir': "Argoverse 1's map_files; default: found above the files"
    },
)

# Editors and type checkers read these names in __init__.pyi. The documentation's parser
# takes a call here, and warns of an attribute.
__getattr__ = TASK.attribute
__all__ = list(TASK.names)


def __dir__() -> list[str]:
    return TASK.names
