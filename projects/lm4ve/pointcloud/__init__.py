"""Point-cloud classification on MMEngine's Runner: everything that is its own."""
from lm4ve.pointcloud.classifier import (
    PointCloudClassifier,
    PointCloudDataSample,
    PointCloudPreprocessor,
    PointClsHead,
)
from lm4ve.pointcloud.datasets import (
    PointCloudDataset,
    PointCloudFolder,
    ScanObjectNN,
)
from lm4ve.pointcloud.evaluation import (
    PointCloudAccuracy,
    PointCloudVote,
    confusion_matrix,
)
from lm4ve.pointcloud.geometry import (
    farthest_point_sample,
    group_points,
    nearest_neighbours,
)
from lm4ve.pointcloud.pointbert import PointBERT, PointMAE
from lm4ve.pointcloud.shapes import ModelNet40, ShapeNet
from lm4ve.pointcloud.transforms import (
    NormalizeToUnitSphere,
    PackPointCloud,
    RandomJitter,
    RandomPointDropout,
    RandomRotate,
    RandomScaleTranslate,
    RepeatDraws,
    SamplePoints,
)

__all__ = [
    'ModelNet40', 'NormalizeToUnitSphere', 'PackPointCloud', 'PointBERT',
    'PointClsHead', 'PointCloudAccuracy', 'PointCloudClassifier',
    'PointCloudDataSample', 'PointCloudDataset', 'PointCloudFolder',
    'PointCloudPreprocessor', 'PointCloudVote', 'PointMAE', 'RandomJitter',
    'RandomPointDropout', 'RandomRotate', 'RandomScaleTranslate', 'RepeatDraws',
    'SamplePoints', 'ScanObjectNN', 'ShapeNet',
    'confusion_matrix', 'farthest_point_sample', 'group_points',
    'nearest_neighbours'
]
