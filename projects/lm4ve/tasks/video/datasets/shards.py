"""Videos in shards: the samples of mmaction2's lists, in few large files."""

import io

from mmengine import fileio

from lm4ve.errors import UserError
from lm4ve.registry import DATASETS
from lm4ve.tasks.base.shards import BACKEND, check_local, read_samples
from lm4ve.tasks.video import TASK
from lm4ve.tasks.video.corruption import find_defect
from lm4ve.tasks.video.datasets.video_lists import (
    CheckedRepeatAugDataset,
    CheckedVideoDataset,
    CheckedVideoMixin,
)


class VideoShardsMixin(CheckedVideoMixin):
    """Reads shards (:mod:`lm4ve.tasks.base.shards`) in place of a list of videos.

    ``tools/dataset_converters/shards.py`` writes them from any list. Entries have the same keys
    as those of :class:`lm4ve.tasks.video.CheckedVideoDataset`, so that pipelines stay as they
    are; ``filename`` is an address that the first transform reads.

    Args:
        ann_file (str): ``<folder>/<split>.index.json``; local. ``data_prefix`` is not used.
        pipeline (list): Its first transform reads files by MMEngine's clients: DecordInit,
            PyAVInit or OpenCVInit, with their default ``io_backend``.
        *args, **kwargs: Passed on.

    Raises:
        UserError: The index is missing or damaged; shards or videos were refused; the pipeline
            begins with another transform.
    """

    def __init__(self, *args, data_root: str = '', **kwargs) -> None:
        check_local(data_root)
        super().__init__(*args, data_root=data_root, **kwargs)

    # What a shard holds is as near as a file.
    _is_local = True

    def load_data_list(self) -> list[dict]:
        """Return address and label of each sample."""
        first = self.pipeline.transforms[0] if self.pipeline.transforms else None
        if first is not None and getattr(first, 'io_backend', None) not in ('disk', BACKEND):
            raise UserError(
                f'dataset.pipeline begins with {type(first).__name__} and '
                f'io_backend={getattr(first, "io_backend", None)!r}, which cannot read shards. '
                "Expected DecordInit, PyAVInit or OpenCVInit, and io_backend='disk'. Fix: begin "
                'with one of them.'
            )
        if first is not None:
            first.io_backend = BACKEND
        samples = read_samples(self.ann_file, TASK.input_suffixes, self.on_corrupt)
        return [dict(filename=s.address, label=s.label) for s in samples]

    def path_of(self, info: dict) -> str:
        """Return the address of an entry."""
        return info['filename']

    def defect_of(self, path: str, decode: bool) -> str | None:
        """Say what is wrong with a sample."""
        try:
            data = fileio.get(path)
        except (OSError, ValueError) as e:
            return f'cannot be read ({e})'
        return find_defect(io.BytesIO(data), decode)


@DATASETS.register_module()
class VideoShards(VideoShardsMixin, CheckedVideoDataset):
    """:class:`lm4ve.tasks.video.CheckedVideoDataset` on shards; see :class:`VideoShardsMixin`."""


@DATASETS.register_module()
class RepeatAugVideoShards(VideoShardsMixin, CheckedRepeatAugDataset):
    """:class:`lm4ve.tasks.video.CheckedRepeatAugDataset` on shards."""
