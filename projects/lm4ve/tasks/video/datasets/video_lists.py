"""Video lists that are checked, so that broken data is named and not trained on.

mmaction2 reads lists without looking at the files: a missing or damaged one
ends a training hours into an epoch, in a worker, often without its name.
"""

import os.path as osp
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mmaction.datasets import RepeatAugDataset, VideoDataset
from mmaction.utils import get_str_type
from mmengine import fileio

from lm4ve.errors import UserError, listing
from lm4ve.files import leads_outside, whole_lines
from lm4ve.registry import DATASETS
from lm4ve.tasks.base.integrity import IntegrityMixin
from lm4ve.tasks.video.corruption import find_defect

_MAX_THREADS = 16
_DECODERS = (('DecordInit', 'DecordDecode'), ('PyAVInit', 'PyAVDecode'))


class CheckedVideoMixin(IntegrityMixin):
    """Checks for data sets derived from mmaction2's ``VideoDataset``.

    The list has one ``path label`` a line; the label is what follows the last
    delimiter, so that paths may hold it. Every file is looked up when the list
    is read. With ``data_prefix.video`` all files lie below that folder; without it the
    list may hold absolute paths.

    Args:
        on_corrupt (str): What becomes of a video that is empty, truncated,
            without a video stream or has a single frame: 'skip' or 'refuse', as
            :mod:`lm4ve.tasks.base.integrity` describes.
        verify (bool or 'decode', optional): Whether all videos are read when the data
            set is loaded; default: for tests only. True reads the packets of
            each and decodes its first frame, 'decode' decodes all of it, False
            trusts the list. In training each process does the former for each
            file the first time that it draws it.
        scan (str): The old name of ``verify`` for tests: 'packets', 'decode' or
            'off'.
        *args, **kwargs: Passed to the data set.

    Raises:
        UserError: The list is missing or malformed; files of it do not exist, or lie
            outside of ``data_prefix.video``; a
            corrupt video was refused; nothing but corrupt videos was found.

    Files on remote storage (``io_backend`` of the pipeline's first transform) are
    not looked up or scanned.
    """

    noun = 'video'

    def __init__(self, *args, **kwargs) -> None:
        self._whole_files: set[str] = set()
        super().__init__(*args, **kwargs)

    @property
    def _is_local(self) -> bool:
        first = self.pipeline.transforms[0] if self.pipeline.transforms else None
        return getattr(first, 'io_backend', 'disk') == 'disk'

    # ------------------------------------------------------------- the list
    def load_data_list(self) -> list[dict]:
        if not osp.isfile(self.ann_file) and '://' not in self.ann_file:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' does not exist. Fix: "
                'check the path; docs/guides/action_recognition.md says how lists '
                'are made.'
            )
        data_list, wrong, outside = [], [], []
        prefix = self.data_prefix.get('video')
        lines = whole_lines(fileio.get(self.ann_file), self.ann_file)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    name, label = self._entry(line.strip())
                except ValueError:
                    wrong.append(f'line {number}')
                    continue
                if prefix and leads_outside(name, prefix):
                    outside.append(f'line {number}')
                data_list.append(
                    dict(filename=osp.join(prefix, name) if prefix else name, label=label)
                )
        if outside:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' names {len(outside)} video(s) outside of "
                f"dataset.data_prefix.video='{prefix}': {listing(outside)}. Fix: correct them, or "
                "set data_prefix=dict(video='') for a list of absolute paths."
            )
        if wrong:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' has {len(wrong)} line(s) "
                f'that are no path and label: {listing(wrong)}. Expected '
                f'path, {self.delimiter!r}, integer. Fix: correct them, or set '
                'dataset.delimiter.'
            )
        if not data_list:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' names no video. Fix: make the list again."
            )
        if self._is_local:
            self._look_up([self.path_of(d) for d in data_list])
        return data_list

    def _entry(self, line: str) -> tuple[str, int | list[int]]:
        """Read ``path label``, or ``path label label ...`` of several classes."""
        if self.multi_class:
            name, *labels = line.split(self.delimiter)
            label = [int(i) for i in labels if i]
        else:
            name, _, label = line.rpartition(self.delimiter)
            label = int(label)
        name = name.rstrip(self.delimiter)
        if not name:
            raise ValueError
        return name, label

    def _look_up(self, paths: Sequence[str]) -> None:
        with ThreadPoolExecutor(_MAX_THREADS) as pool:
            there = list(pool.map(osp.isfile, paths))
        missing = [p for p, found in zip(paths, there, strict=True) if not found]
        if missing:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' names {len(missing)} of "
                f'{len(paths)} video(s) that do not exist: {listing(missing)}. '
                'Fix: put them there, set dataset.data_prefix.video, or take '
                'them out of the list.'
            )

    # ------------------------------------------------------------ the files
    def path_of(self, info: dict) -> str:
        """Return the file of an entry, as mmaction2's DecordInit opens it."""
        path = info['filename']
        return path if osp.splitext(path)[1] else f'{path}.mp4'

    def is_scanned(self) -> bool:
        """Return whether all files are read when the list is loaded."""
        return self._is_local and super().is_scanned()

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Say what is wrong with a video; one that was whole is not read again."""
        trusted = self.test_mode and self.verify is False
        if not self._is_local or not decode and (trusted or path in self._whole_files):
            return None
        defect = self.defect_of(path, decode)
        if defect is None:
            self._whole_files.add(path)
        return defect

    def defect_of(self, path: str, decode: bool) -> str | None:
        """Look at a video; see :func:`lm4ve.tasks.video.corruption.find_defect`."""
        return find_defect(path, decode)

    def find_defect_behind(self, error: Exception, path: str) -> str | None:
        """Say which defect made the pipeline fail; a decoder's own error is one."""
        defect = super().find_defect_behind(error, path)
        return defect or (f'cannot be decoded ({error})' if _is_decoders(error) else None)


def _is_decoders(error: Exception) -> bool:
    """Whether decord or PyAV raised it.

    Both have error classes of their own, but decord raises RuntimeError too where FFmpeg
    finds no stream that it can open.
    """
    if type(error) is RuntimeError and (trace := error.__traceback__) is not None:
        while trace.tb_next is not None:
            trace = trace.tb_next
        return trace.tb_frame.f_globals.get('__name__', '').partition('.')[0] == 'decord'
    return type(error).__module__.partition('.')[0] in ('decord', 'av')


@DATASETS.register_module()
class CheckedVideoDataset(CheckedVideoMixin, VideoDataset):
    """mmaction2's ``VideoDataset`` with the checks of :class:`CheckedVideoMixin`.

    Set ``test_mode=True`` for data that is evaluated on.
    """


class _RepeatAugDataset(RepeatAugDataset):
    """mmaction2's ``RepeatAugDataset``, with PyAV as well."""

    def __init__(
        self,
        ann_file: str,
        pipeline: list,
        num_repeats: int = 2,
        sample_once: bool = False,
        **kwargs,
    ) -> None:
        found = tuple(
            get_str_type(t['type']) if isinstance(t, dict) else type(t).__name__
            for t in pipeline[:3:2]
        )
        if found not in _DECODERS:
            raise UserError(
                f'dataset.pipeline begins with {found}; repeated sampling '
                'decodes between the first transform and the third. Expected '
                f'one of {_DECODERS}, with the sampling between them.'
            )
        self.num_repeats = num_repeats
        self.sample_once = sample_once
        # The host's own constructor refuses PyAV, which its method can use.
        super(RepeatAugDataset, self).__init__(ann_file, pipeline=pipeline, **kwargs)


@DATASETS.register_module()
class CheckedRepeatAugDataset(CheckedVideoMixin, _RepeatAugDataset):
    """mmaction2's ``RepeatAugDataset`` with the checks of :class:`CheckedVideoMixin`.

    A video is opened once and gives ``num_repeats`` clips, each sampled and
    augmented on its own. Its pipeline begins with initialization, sampling and
    decoding; batches need ``collate_fn=dict(type='repeat_pseudo_collate')``.

    Args:
        ann_file (str): The list.
        pipeline (list): Transforms; the first and the third are DecordInit and
            DecordDecode, or PyAVInit and PyAVDecode.
        num_repeats (int): Clips of a video in a batch.
        sample_once (bool): The same frames for all of them.
        on_corrupt, verify: See :class:`CheckedVideoMixin`.
        **kwargs: Passed to mmaction2's ``VideoDataset``.

    Raises:
        UserError: The pipeline begins otherwise.
    """
