from lm4ve.tasks.base.task import Task as Task
from lm4ve.tasks.vqa.datasets.digit_scenes import DigitScenes as DigitScenes
from lm4ve.tasks.vqa.datasets.digit_scenes import DigitScenesVQA as DigitScenesVQA
from lm4ve.tasks.vqa.datasets.easy_vqa import EasyVQA as EasyVQA
from lm4ve.tasks.vqa.datasets.image_text import ImageTextDataset as ImageTextDataset
from lm4ve.tasks.vqa.datasets.retrieval import CaptionDataset as CaptionDataset
from lm4ve.tasks.vqa.datasets.retrieval import CaptionFiles as CaptionFiles
from lm4ve.tasks.vqa.datasets.retrieval import KarpathyRetrieval as KarpathyRetrieval
from lm4ve.tasks.vqa.datasets.vqa import AskFirstHook as AskFirstHook
from lm4ve.tasks.vqa.datasets.vqa import VisualGenomeQA as VisualGenomeQA
from lm4ve.tasks.vqa.datasets.vqa import VQADataset as VQADataset
from lm4ve.tasks.vqa.datasets.vqa import VQAFiles as VQAFiles
from lm4ve.tasks.vqa.datasets.vqa import VQAv2 as VQAv2
from lm4ve.tasks.vqa.inference import RetrievalInferencer as RetrievalInferencer
from lm4ve.tasks.vqa.inference import VQAInferencer as VQAInferencer
from lm4ve.tasks.vqa.loops import RetrievalTestLoop as RetrievalTestLoop
from lm4ve.tasks.vqa.loops import RetrievalValLoop as RetrievalValLoop
from lm4ve.tasks.vqa.metrics import RetrievalRecall as RetrievalRecall
from lm4ve.tasks.vqa.metrics import VQAAccuracy as VQAAccuracy
from lm4ve.tasks.vqa.metrics import recall_at as recall_at
from lm4ve.tasks.vqa.metrics import vqa_accuracy as vqa_accuracy
from lm4ve.tasks.vqa.models.encoders import ConvStem as ConvStem
from lm4ve.tasks.vqa.models.encoders import TimmImageEncoder as TimmImageEncoder
from lm4ve.tasks.vqa.models.encoders import (
    TransformersImageEncoder as TransformersImageEncoder,
)
from lm4ve.tasks.vqa.models.encoders import (
    TransformersTextEncoder as TransformersTextEncoder,
)
from lm4ve.tasks.vqa.models.fusion import CoAttentionFusion as CoAttentionFusion
from lm4ve.tasks.vqa.models.heads import MatchingHead as MatchingHead
from lm4ve.tasks.vqa.models.heads import RetrievalHead as RetrievalHead
from lm4ve.tasks.vqa.models.heads import VQAHead as VQAHead
from lm4ve.tasks.vqa.models.meter import METER as METER
from lm4ve.tasks.vqa.models.preprocessor import (
    VisionLanguagePreprocessor as VisionLanguagePreprocessor,
)
from lm4ve.tasks.vqa.optim import (
    METEROptimWrapperConstructor as METEROptimWrapperConstructor,
)
from lm4ve.tasks.vqa.transforms import BlankImage as BlankImage
from lm4ve.tasks.vqa.transforms import PackVisionLanguage as PackVisionLanguage
from lm4ve.tasks.vqa.transforms import SolarizeAdd as SolarizeAdd
from lm4ve.tasks.vqa.transforms import TranslateByPixels as TranslateByPixels
from lm4ve.tasks.vqa.visualization import (
    VisionLanguageVisualizationHook as VisionLanguageVisualizationHook,
)
from lm4ve.tasks.vqa.visualization import (
    VisionLanguageVisualizer as VisionLanguageVisualizer,
)

TASK: Task
