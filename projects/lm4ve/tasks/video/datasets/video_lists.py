"""Video lists with checks, so that broken data is reported and not trained on.

mmaction2 reads lists without checking the files: a missing or damaged one ends a
training hours into an epoch, in a worker, often without its name.
"""

import os.path as osp
import traceback
from collections.abc import Sequence

from mmaction.datasets import RepeatAugDataset, VideoDataset
from mmengine import fileio

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.data.labels import read_list
from lm4ve.errors import UserError, require
from lm4ve.files import is_file, leads_outside, map_in_threads
from lm4ve.registry import DATASETS
from lm4ve.tasks.video.datasets.video_files import find_defect


class CheckedVideoMixin(IntegrityMixin):
    """Checks for data sets derived from mmaction2's ``VideoDataset``.

    The list has one ``path label`` per line; the label is what follows the last
    delimiter, so that paths may hold it. With ``data_prefix.video`` all files lie below
    that folder; without it the list may hold absolute paths.

    Args:
        on_corrupt (str, optional): What becomes of a video that is empty, truncated,
            without a video stream or with a single frame: see
            :mod:`lm4ve.data.integrity`.
        verify (bool or 'decode', optional): Whether all videos are read when the data
            set is loaded. Default: where they are scored. True reads the packets of each and
            decodes its first frame, 'decode' decodes all of it, False trusts the list.
            A training that reads none beforehand does the former for each video that it
            draws, which takes a ninth of the time of decoding its clip.
        *args, **kwargs: Passed to the data set.

    Raises:
        UserError: The list is cut or malformed, has negative labels or two labels for a
            video; none of its files exists, or one lies outside of
            ``data_prefix.video``; a corrupt video was refused; all videos are corrupt.

    Files on remote storage (``io_backend`` of the pipeline's first transform) are not
    checked.
    """

    noun = 'video'

    @property
    def _is_local(self) -> bool:
        """Whether the pipeline's first transform reads files from a local disk."""
        if not self.pipeline.transforms:
            return True
        decoder = self.pipeline.transforms[0]
        return getattr(decoder, 'io_backend', 'disk') == 'disk'

    def load_data_list(self) -> list[dict]:
        """Return path and label of each video of the list."""
        prefix = self.data_prefix.get('video') or ''
        classes = self.metainfo.get('classes')
        num_classes = len(classes) if classes else None
        entries = read_list(
            fileio.get(self.ann_file),
            self.ann_file,
            delimiter=self.delimiter,
            classes=num_classes,
            leads_outside=self._leads_outside,
        )
        data_list = []
        for entry in entries:
            path = osp.join(prefix, entry.name)
            data_list.append(dict(filename=path, label=entry.label))
        if self._is_local:
            self._refuse_other_folder([self.path_of(info) for info in data_list])
        return data_list

    def _leads_outside(self, name: str) -> bool:
        """Return whether a list's entry names a file outside of the data's folder."""
        prefix = self.data_prefix.get('video')
        # Without a folder, a list may hold any path.
        return bool(prefix) and leads_outside(name, prefix)

    def _refuse_other_folder(self, paths: Sequence[str]) -> None:
        """Refuse a list none of whose files is there; some that are missing are damaged."""
        if any(map_in_threads(is_file, paths)):
            return
        raise UserError(
            f"dataset.ann_file='{self.ann_file}': '{paths[0]}' and all its other videos do not "
            'exist. Fix: dataset.data_prefix.'
        )

    def path_of(self, info: dict) -> str:
        """Return the file of an entry, as mmaction2's DecordInit opens it."""
        path = info['filename']
        return path if osp.splitext(path)[1] else f'{path}.mp4'

    def files_of_libraries(self, path: str) -> list[str]:
        """Return the file, which FFmpeg and decord open by its path."""
        return [path]

    def is_scanned(self) -> bool:
        """Return whether all files are read when the list is loaded."""
        return self._is_local and super().is_scanned()

    def find_defect_when_drawn(self, path: str) -> str | None:
        """Return what is wrong with a video; None of one that was read at the start, or trusted."""
        if self.verify is False or self.is_scanned():
            return None
        return super().find_defect_when_drawn(path)

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return what is wrong with a video, see :mod:`lm4ve.tasks.video.datasets.video_files`."""
        if not self._is_local:
            return None
        return find_defect(path, decode)

    def find_defect_behind(self, error: Exception, path: str) -> str | None:
        """Return the video's defect that made the pipeline fail, or None for a bug.

        Some damage is found only as a clip is decoded. An error that decord or PyAV has
        raised is therefore taken for a defect, too; any other one is the pipeline's own.

        Args:
            error (Exception): What the pipeline raised.
            path (str): The video's file.
        """
        defect = super().find_defect_behind(error, path)
        if defect is not None:
            return defect
        # The decoders' errors have no type in common: which library raised one is what
        # counts.
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        library, _, _ = frames[-1].f_globals['__name__'].partition('.')
        if library in ('decord', 'av'):
            return f'cannot be decoded ({error})'
        return None


@DATASETS.register_module()
class CheckedVideoDataset(CheckedVideoMixin, VideoDataset):
    """mmaction2's ``VideoDataset`` with the checks of :class:`CheckedVideoMixin`."""


@DATASETS.register_module()
class CheckedRepeatAugDataset(CheckedVideoMixin, RepeatAugDataset):
    """mmaction2's ``RepeatAugDataset`` with the checks of :class:`CheckedVideoMixin`.

    A video is opened once and gives ``num_repeats`` clips, each sampled and augmented
    on its own. Batches need ``collate_fn=dict(type='repeat_pseudo_collate')``.

    Args:
        ann_file (str): The list.
        pipeline (list): Transforms that begin with DecordInit, sampling and
            DecordDecode.
        num_repeats (int): Clips of a video in a batch.
        sample_once (bool): The same frames for all of them.
        on_corrupt, verify: See :class:`CheckedVideoMixin`.
        **kwargs: Passed to mmaction2's ``VideoDataset``.

    Raises:
        UserError: It is to be scored.
    """

    def __init__(self, *args, test_mode: bool = False, **kwargs) -> None:
        require(
            not test_mode,
            f'{type(self).__name__} only trains. Fix: lm4ve.CheckedVideoDataset to score videos.',
        )
        super().__init__(*args, **kwargs)
