"""The cache of a split as a data set of MMEngine's Runner."""

from collections.abc import Sequence

from mmengine.dataset import Compose
from torch.utils.data import Dataset

from lm4ve.registry import DATASETS
from lm4ve.tasks.motion.datasets.cache import SceneCache
from lm4ve.tasks.motion.scene import Scene


@DATASETS.register_module()
class MotionDataset(Dataset):
    """Scenes of a cache that ``tools/motion/preprocess.py`` has written.

    Args:
        cache (str): The file.
        pipeline (Sequence[dict]): Transforms of ``dict(scene=Scene)``.
        indices (int | Sequence[int], optional): The first so many scenes, or
            these.
        verify (bool): Hash the whole file first, once and not in every worker. This adds
            under two percent to the time in which a training loads it. Its count and
            index are always checked.
        metainfo (dict, optional): More of it.

    Raises:
        UserError: See :class:`lm4ve.tasks.motion.datasets.cache.SceneCache`.
    """

    def __init__(
        self,
        cache: str,
        pipeline: Sequence = (),
        indices: int | Sequence[int] | None = None,
        verify: bool = True,
        metainfo: dict | None = None,
    ) -> None:
        self.scenes = SceneCache(cache, verify)
        everything = range(len(self.scenes))
        first = indices is None or isinstance(indices, int)
        self.indices = everything[:indices] if first else list(indices)
        self.pipeline = Compose(pipeline)
        self.metainfo = dict(metainfo or {})

    def __len__(self) -> int:
        return len(self.indices)

    def scene(self, i: int) -> Scene:
        """The :class:`lm4ve.tasks.motion.scene.Scene` ``i``."""
        return self.scenes[self.indices[i]]

    def __getitem__(self, i: int) -> dict:
        return self.pipeline(dict(scene=self.scene(i), sample_idx=i))
