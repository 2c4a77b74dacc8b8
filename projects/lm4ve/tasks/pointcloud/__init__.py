"""Point-cloud classification on MMEngine's Runner: everything that is its own."""

from lm4ve.tasks.base.task import Task

TASK = Task(
    name='pointcloud',
    title='point-cloud classification',
    package=__name__,
    extra='pointcloud',
    models=('lm4ve.tasks.pointcloud.models.classifier.PointCloudClassifier',),
    registers={
        'datasets.mesh_collections': ('ModelNet40', 'ShapeNet'),
        'datasets.point_clouds': ('PointCloudFolder', 'ScanObjectNN'),
        'datasets.primitives': ('PrimitivesDataset',),
        'metrics': ('PointCloudAccuracy', 'PointCloudVote'),
        'models.classifier': (
            'PointCloudClassifier',
            'PointCloudPreprocessor',
            'PointClsHead',
        ),
        'models.pointbert': ('PointBERT', 'PointMAE'),
        'transforms': (
            'NormalizeToUnitSphere',
            'PackPointCloud',
            'RandomJitter',
            'RandomPointDropout',
            'RandomRotate',
            'RandomScaleTranslate',
            'RepeatDraws',
            'SamplePoints',
        ),
    },
    exports={
        'datasets.point_clouds': ('PointCloudDataset',),
        'models.pointbert': (
            'farthest_point_sample',
            'group_points',
            'nearest_neighbors',
        ),
        'structures': ('PointCloudDataSample',),
    },
    input_noun='a point cloud',
    input_suffixes=('.ply', '.pcd', '.xyz', '.off', '.obj', '.stl', '.npy', '.txt'),
)

# Editors and type checkers read these names in __init__.pyi. The documentation's parser
# takes a call here, and warns of an attribute.
__getattr__ = TASK.attribute
__all__ = list(TASK.names)


def __dir__() -> list[str]:
    return TASK.names
