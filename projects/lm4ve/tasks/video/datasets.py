"""Video lists that are checked, so that broken data is named and not trained on.

mmaction2 reads lists without looking at the files: a missing or damaged one
ends a training hours into an epoch, in a worker, often without its name.
"""

import logging
import os
import os.path as osp
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mmaction.datasets import RepeatAugDataset, VideoDataset
from mmaction.utils import get_str_type
from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from lm4ve.engine.text import listing
from lm4ve.errors import UserError
from lm4ve.registry import DATASETS
from lm4ve.tasks.video.corruption import find_defect

_MAX_THREADS = 16
_DECODERS = (('DecordInit', 'DecordDecode'), ('PyAVInit', 'PyAVDecode'))


class CheckedVideoMixin:
    """Checks for data sets derived from mmaction2's ``VideoDataset``.

    The list has one ``path label`` a line; the label is what follows the last
    delimiter, so that paths may hold it. Every file is looked up when the list
    is read.

    Args:
        on_corrupt (str): What becomes of a video that is empty, truncated,
            without a video stream or has a single frame.

            - 'skip', in training: another random sample takes its place; a
              warning names each such file once. After ``max_refetch`` (1000)
              corrupt draws in a row it raises.
            - 'skip', with ``test_mode``: the list is scanned up front, and
              such files are left out, counted and logged. Metrics are over
              the videos that remain.
            - 'refuse': raises; with ``test_mode`` up front, all at once.
        scan (str): With ``test_mode``, how files are scanned: 'packets' reads
            each file once and decodes its first frame, 'decode' decodes all
            of it, 'off' trusts the list. In training each process does the
            former for each file the first time that it draws it.
        *args, **kwargs: Of the data set.

    Raises:
        UserError: The list is missing or malformed; files of it do not exist; a
            corrupt video was refused; nothing but corrupt videos was found.

    ``num_corrupt`` and ``corrupt_files`` (path -> defect) tell of the files
    found by *this process*; dataloader workers each have their own and log what
    they skip. Files on remote storage (``io_backend`` of the pipeline's first
    transform) are not looked up or scanned.
    """

    def __init__(
        self, *args, on_corrupt: str = 'skip', scan: str = 'packets', **kwargs
    ) -> None:
        self._set_checks(on_corrupt, scan)
        super().__init__(*args, **kwargs)

    def _set_checks(self, on_corrupt: str, scan: str) -> None:
        for field, value, allowed in (
            ('on_corrupt', on_corrupt, ('skip', 'refuse')),
            ('scan', scan, ('packets', 'decode', 'off')),
        ):
            if value not in allowed:
                raise UserError(
                    f"dataset.{field}='{value}' must be one of {', '.join(allowed)}."
                )
        self.on_corrupt = on_corrupt
        self.scan = scan
        self.corrupt_files = {}
        self._whole_files = set()
        self._corrupt_in_a_row = 0

    @property
    def num_corrupt(self) -> int:
        """How many distinct corrupt files this process has met."""
        return len(self.corrupt_files)

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
        data_list, wrong = [], []
        for number, line in enumerate(list_from_file(self.ann_file), start=1):
            if line.strip():
                try:
                    data_list.append(self._entry(line.strip()))
                except ValueError:
                    wrong.append(f'line {number} ({line.strip()[:60]!r})')
        if wrong:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' has {len(wrong)} line(s) "
                f'that are no path and label: {listing(wrong)}. Expected '
                f'path, {self.delimiter!r}, integer. Fix: correct them, or set '
                'dataset.delimiter.'
            )
        if not data_list:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' names no "
                'video. Fix: make the list again.'
            )
        if self._is_local:
            self._look_up([d['filename'] for d in data_list])
        return data_list

    def _entry(self, line: str) -> dict:
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
        prefix = self.data_prefix.get('video')
        return dict(filename=osp.join(prefix, name) if prefix else name, label=label)

    def _look_up(self, paths: Sequence[str]) -> None:
        with ThreadPoolExecutor(_MAX_THREADS) as pool:
            there = list(pool.map(osp.isfile, map(self._with_suffix, paths)))
        missing = [p for p, found in zip(paths, there, strict=True) if not found]
        if missing:
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' names {len(missing)} of "
                f'{len(paths)} video(s) that do not exist: {listing(missing)}. '
                'Fix: put them there, set dataset.data_prefix.video, or take '
                'them out of the list.'
            )

    @staticmethod
    def _with_suffix(path: str) -> str:
        # As mmaction2's DecordInit opens it.
        return path if osp.splitext(path)[1] else f'{path}.mp4'

    # ------------------------------------------------------------ the files
    def filter_data(self) -> list[dict]:
        data_list = super().filter_data()
        if not (self.test_mode and self._is_local) or self.scan == 'off':
            return data_list
        start = time.perf_counter()
        paths = [self._with_suffix(d['filename']) for d in data_list]
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, 'sched_getaffinity')
            else os.cpu_count()
        )
        with ThreadPoolExecutor(min(cores, _MAX_THREADS)) as pool:
            defects = list(
                pool.map(lambda p: find_defect(p, self.scan == 'decode'), paths)
            )
        kept = []
        for data, path, defect in zip(data_list, paths, defects, strict=True):
            if defect is None:
                kept.append(data)
                self._whole_files.add(path)
            else:
                self.corrupt_files[path] = defect
        self._report_scan(len(data_list), len(kept), time.perf_counter() - start)
        return kept

    def _report_scan(self, total: int, kept: int, seconds: float) -> None:
        bad = [f"'{p}' {d}" for p, d in self.corrupt_files.items()]
        summary = f'{type(self).__name__}: {total - kept} of {total} videos are corrupt'
        if bad and (self.on_corrupt == 'refuse' or not kept):
            raise UserError(
                f'{summary}: {listing(bad)}. Fix: fetch the data again'
                + (", or set dataset.on_corrupt='skip'." if kept else '.')
            )
        if bad:
            print_log(
                f'{summary} and left out; metrics are over the other {kept}: '
                f'{listing(bad, 20)}.',
                logger='current',
                level=logging.WARNING,
            )
        else:
            print_log(f'{summary} (scanned in {seconds:.1f} s).', logger='current')

    def prepare_data(self, idx: int):
        """The sample after the pipeline; None (draw another) if it is corrupt."""
        path = self._with_suffix(self.get_data_info(idx)['filename'])
        check = self._is_local and not (self.test_mode and self.scan == 'off')
        if check and path not in self._whole_files:
            defect = find_defect(path)
            if defect is not None:
                return self._pass_over(path, defect)
            self._whole_files.add(path)
        try:
            data = super().prepare_data(idx)
        except Exception as e:
            # The file's fault, or a transform's? Only the first is ours.
            defect = find_defect(path, decode=True) if self._is_local else None
            if defect is None and not _is_decoders(e):
                raise
            return self._pass_over(path, defect or f'cannot be decoded ({e})')
        self._corrupt_in_a_row = 0
        return data

    def _pass_over(self, path: str, defect: str) -> None:
        """Count and report a corrupt file, or raise."""
        if self.on_corrupt == 'refuse':
            raise UserError(
                f"The video '{path}' {defect}. Fix: replace the file or take it "
                "out of the list, or set dataset.on_corrupt='skip'."
            )
        if self.test_mode:
            raise UserError(
                f"The video '{path}' {defect}, and a test does not replace "
                'videos by others. Fix: replace the file or take it out of the '
                "list, or set dataset.scan='decode' to find such files first."
            )
        self._corrupt_in_a_row += 1
        self._whole_files.discard(path)
        if path not in self.corrupt_files:
            self.corrupt_files[path] = defect
            worker = get_worker_info()
            where = '' if worker is None else f' of worker {worker.id}'
            print_log(
                f"The video '{path}' {defect}: another sample takes its place "
                f'(corrupt file {self.num_corrupt}{where}).',
                logger='current',
                level=logging.WARNING,
            )
        if self._corrupt_in_a_row > self.max_refetch:
            raise UserError(
                f'{self._corrupt_in_a_row} videos drawn in a row are corrupt '
                f"({self.num_corrupt} files, the last: '{path}' {defect}). Fix: "
                'fetch the data again.'
            )
        return None


def _is_decoders(error: Exception) -> bool:
    """Whether decord or PyAV raised it (both have error classes of their own)."""
    return type(error).__module__.partition('.')[0] in ('decord', 'av')


@DATASETS.register_module()
class CheckedVideoDataset(CheckedVideoMixin, VideoDataset):
    """mmaction2's ``VideoDataset`` with the checks of :class:`CheckedVideoMixin`.

    Set ``test_mode=True`` for data that is evaluated on.
    """


@DATASETS.register_module()
class CheckedRepeatAugDataset(CheckedVideoMixin, RepeatAugDataset):
    """mmaction2's ``RepeatAugDataset`` with checks, and with PyAV as well.

    A video is opened once and gives ``num_repeats`` clips, each sampled and
    augmented on its own. Its pipeline begins with initialisation, sampling and
    decoding; batches need ``collate_fn=dict(type='repeat_pseudo_collate')``.

    Args:
        ann_file (str): The list.
        pipeline (list): Transforms; the first and the third are DecordInit and
            DecordDecode, or PyAVInit and PyAVDecode.
        num_repeats (int): Clips of a video in a batch.
        sample_once (bool): The same frames for all of them.
        on_corrupt, scan: Of :class:`CheckedVideoMixin`.
        **kwargs: Of mmaction2's ``VideoDataset``.

    Raises:
        UserError: The pipeline begins otherwise.
    """

    def __init__(
        self,
        ann_file: str,
        pipeline: list,
        num_repeats: int = 2,
        sample_once: bool = False,
        on_corrupt: str = 'skip',
        scan: str = 'packets',
        **kwargs,
    ) -> None:
        found: tuple[str, ...] = tuple(
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
        self._set_checks(on_corrupt, scan)
        # The host's own constructor refuses PyAV, which its method can use.
        super(RepeatAugDataset, self).__init__(ann_file, pipeline=pipeline, **kwargs)
