from lm4ve.tasks.base.task import Task as Task
from lm4ve.tasks.rooms.datasets.rooms import Rooms as Rooms
from lm4ve.tasks.rooms.datasets.sqa3d import SQA3DDataset as SQA3DDataset
from lm4ve.tasks.rooms.inference import RoomInferencer as RoomInferencer
from lm4ve.tasks.rooms.metrics import SQA3DAccuracy as SQA3DAccuracy
from lm4ve.tasks.rooms.models.fusion import GuidedFusion as GuidedFusion
from lm4ve.tasks.rooms.models.heads import PoseHead as PoseHead
from lm4ve.tasks.rooms.models.heads import SceneAnswerHead as SceneAnswerHead
from lm4ve.tasks.rooms.models.language import LSTMTextEncoder as LSTMTextEncoder
from lm4ve.tasks.rooms.models.model import SQA3D as SQA3D
from lm4ve.tasks.rooms.models.objects import StoredObjects as StoredObjects
from lm4ve.tasks.rooms.models.preprocessor import SQA3DPreprocessor as SQA3DPreprocessor
from lm4ve.tasks.rooms.models.votenet import VoteNet as VoteNet
from lm4ve.tasks.rooms.optim import BatchNormMomentumHook as BatchNormMomentumHook
from lm4ve.tasks.rooms.transforms import AugmentScene as AugmentScene
from lm4ve.tasks.rooms.transforms import LoadObjects as LoadObjects
from lm4ve.tasks.rooms.transforms import LoadScene as LoadScene
from lm4ve.tasks.rooms.transforms import PackScene as PackScene
from lm4ve.tasks.rooms.transforms import SampleScenePoints as SampleScenePoints

TASK: Task
