from lm4ve.tasks.base.task import Task as Task
from lm4ve.tasks.pointcloud.datasets.mesh_collections import ModelNet40 as ModelNet40
from lm4ve.tasks.pointcloud.datasets.mesh_collections import ShapeNet as ShapeNet
from lm4ve.tasks.pointcloud.datasets.point_clouds import (
    PointCloudDataset as PointCloudDataset,
)
from lm4ve.tasks.pointcloud.datasets.point_clouds import (
    PointCloudFolder as PointCloudFolder,
)
from lm4ve.tasks.pointcloud.datasets.point_clouds import ScanObjectNN as ScanObjectNN
from lm4ve.tasks.pointcloud.datasets.primitives import (
    PrimitivesDataset as PrimitivesDataset,
)
from lm4ve.tasks.pointcloud.metrics import PointCloudAccuracy as PointCloudAccuracy
from lm4ve.tasks.pointcloud.metrics import PointCloudVote as PointCloudVote
from lm4ve.tasks.pointcloud.models.classifier import (
    PointCloudClassifier as PointCloudClassifier,
)
from lm4ve.tasks.pointcloud.models.classifier import (
    PointCloudPreprocessor as PointCloudPreprocessor,
)
from lm4ve.tasks.pointcloud.models.classifier import PointClsHead as PointClsHead
from lm4ve.tasks.pointcloud.models.pointbert import PointBERT as PointBERT
from lm4ve.tasks.pointcloud.models.pointbert import PointMAE as PointMAE
from lm4ve.tasks.pointcloud.models.pointbert import (
    farthest_point_sample as farthest_point_sample,
)
from lm4ve.tasks.pointcloud.models.pointbert import group_points as group_points
from lm4ve.tasks.pointcloud.models.pointbert import (
    nearest_neighbors as nearest_neighbors,
)
from lm4ve.tasks.pointcloud.structures import (
    PointCloudDataSample as PointCloudDataSample,
)
from lm4ve.tasks.pointcloud.transforms import (
    NormalizeToUnitSphere as NormalizeToUnitSphere,
)
from lm4ve.tasks.pointcloud.transforms import PackPointCloud as PackPointCloud
from lm4ve.tasks.pointcloud.transforms import RandomJitter as RandomJitter
from lm4ve.tasks.pointcloud.transforms import RandomPointDropout as RandomPointDropout
from lm4ve.tasks.pointcloud.transforms import RandomRotate as RandomRotate
from lm4ve.tasks.pointcloud.transforms import (
    RandomScaleTranslate as RandomScaleTranslate,
)
from lm4ve.tasks.pointcloud.transforms import RepeatDraws as RepeatDraws
from lm4ve.tasks.pointcloud.transforms import SamplePoints as SamplePoints

TASK: Task
