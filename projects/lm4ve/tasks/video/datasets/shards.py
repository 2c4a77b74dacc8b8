"""Videos in shards: the samples of mmaction2's lists, in few large files."""

import io
from collections.abc import Mapping
from typing import Any

from mmengine import fileio

from lm4ve.data.shards import BACKEND, read_left_out, read_samples
from lm4ve.errors import check
from lm4ve.files import is_storage_error
from lm4ve.registry import DATASETS
from lm4ve.runner.missing import Missing, missing_in
from lm4ve.tasks.video.datasets.video_files import find_defect
from lm4ve.tasks.video.datasets.video_lists import (
    CheckedRepeatAugDataset,
    CheckedVideoDataset,
    CheckedVideoMixin,
)


class VideoShardsMixin(CheckedVideoMixin):
    """Reads shards (:mod:`lm4ve.data.shards`) in place of a list of videos.

    ``tools/dataset_converters/shards.py`` writes them from any list. Entries have the
    same keys as those of :class:`lm4ve.tasks.video.CheckedVideoDataset`, so that
    pipelines stay as they are; ``filename`` is an address that the first transform
    reads.

    Args:
        ann_file (str): ``<folder>/<split>.index.json``; local. ``data_prefix`` is not
            used.
        pipeline (list): Its first transform reads files by MMEngine's clients:
            DecordInit, PyAVInit or OpenCVInit, with their default ``io_backend``.
        *args, **kwargs: Passed on.

    Raises:
        UserError: A shard is missing or cut, or videos were refused.
    """

    _is_local = True

    @classmethod
    def find_missing(cls, node: Mapping[str, Any], field: str) -> list[Missing]:
        """Return that the index is missing, in a list; ``data_prefix`` is not used."""
        return missing_in(cls, {**node, 'data_prefix': None}, field)

    def load_data_list(self) -> list[dict]:
        """Return address and label of each sample."""
        if self.pipeline.transforms:
            decoder = self.pipeline.transforms[0]
            backend = decoder.io_backend
            check('io_backend of the decoder', backend, choices=('disk', BACKEND))
            decoder.io_backend = BACKEND
        samples = read_samples(self.ann_file)
        count, examples = read_left_out(self.ann_file)
        self.leave_out(
            'are not in the shards', examples, len(samples) + count, count=count
        )
        return [dict(filename=address, label=label) for address, label in samples]

    def path_of(self, info: dict) -> str:
        """Return the address of an entry."""
        return info['filename']

    def files_of_libraries(self, path: str) -> list[str]:
        """Return none: samples are read by :mod:`lm4ve.data.shards`."""
        return []

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return what is wrong with a sample, or None."""
        try:
            data = fileio.get(path)
        except (OSError, ValueError) as error:
            if is_storage_error(error):
                raise
            return f'cannot be read ({error})'
        return find_defect(io.BytesIO(data), decode)


@DATASETS.register_module()
class VideoShards(VideoShardsMixin, CheckedVideoDataset):
    """:class:`lm4ve.tasks.video.CheckedVideoDataset` on shards; see :class:`VideoShardsMixin`."""


@DATASETS.register_module()
class RepeatAugVideoShards(VideoShardsMixin, CheckedRepeatAugDataset):
    """:class:`lm4ve.tasks.video.CheckedRepeatAugDataset` on shards."""
