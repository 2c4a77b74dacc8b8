"""Image folders that are checked, so that broken data is named and not trained on.

mmpretrain only warns of a class folder without images, stops at the first
corrupt file (hours into an epoch, without its name in some cases), and takes
what its decoder makes of a truncated one.
"""

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mmengine import fileio
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset, ImageNet
from mmpretrain.datasets.custom import find_folders
from torch.utils.data import get_worker_info

from lm4ve.engine.text import listing
from lm4ve.errors import UserError
from lm4ve.registry import DATASETS
from lm4ve.tasks.image.corruption import find_defect

_CHUNK = 512
_MAX_THREADS = 16


def empty_folders_error(
    root: str, folders: Sequence[str], extensions: Sequence[str]
) -> UserError:
    """The error for class folders without images."""
    return UserError(
        f"{len(folders)} class folder(s) in '{root}' hold no image: "
        f'{listing(sorted(folders))}. Looked for files ending in '
        f'{", ".join(sorted(extensions))}. Fix: put their images back, or '
        'remove the folders if the data set is your own; other endings go into '
        'dataset.extensions.'
    )


class CheckedMixin:
    """Checks for data sets derived from mmpretrain's ``CustomDataset``.

    Args:
        on_corrupt (str): What becomes of an image that is empty, truncated,
            unreadable or no image at all.

            - 'skip', in training: another random sample takes its place; a
              warning names each such file once. After ``max_refetch`` (1000)
              corrupt draws in a row it raises.
            - 'skip', with ``test_mode``: the list is scanned up front, and
              corrupt files are left out, counted and logged. Metrics are over
              the images that remain.
            - 'refuse': reading one raises.
        verify (bool, optional): Scan the whole list when it is loaded: corrupt
            files are left out ('skip') or refused all at once ('refuse').
            Default: only with ``test_mode`` and 'skip'. A scan reads every file
            once, in threads, on every rank: about 0.25 ms an image and core.
            ``verify=False`` skips it; a corrupt file then raises when read.
        *args, **kwargs: Of the data set.

    Raises:
        UserError: The folder or the annotation file is missing; a class folder
            has no images; the folders do not match the classes; a corrupt image
            was refused; nothing but corrupt images was found.

    ``num_corrupt`` and ``corrupt_files`` tell of the files found by *this
    process*. Each dataloader worker has its own copy: what workers skip is
    counted and logged there (the warning names the worker) and never reaches
    the main process; two workers may both name a file, and so may an epoch's
    new workers if ``persistent_workers`` is off. Of several ranks MMEngine
    shows the warnings of the first.

    Cost of the check in training: some 10 microseconds an image (see
    :func:`lm4ve.tasks.image.corruption.find_defect`, also for what it cannot find);
    formats other than JPEG and PNG are decoded twice.
    """

    def __init__(
        self, *args, on_corrupt: str = 'skip', verify: bool | None = None, **kwargs
    ) -> None:
        if on_corrupt not in ('skip', 'refuse'):
            raise UserError(
                f"dataset.on_corrupt='{on_corrupt}' must be 'skip' or 'refuse'."
            )
        self.on_corrupt = on_corrupt
        self.verify = verify
        self.corrupt_files = {}  # path -> defect
        self._corrupt_in_a_row = 0
        super().__init__(*args, **kwargs)

    @property
    def num_corrupt(self) -> int:
        """How many distinct corrupt files this process has met."""
        return len(self.corrupt_files)

    def load_data_list(self) -> list:
        self.check_paths()
        return super().load_data_list()

    def check_paths(self) -> None:
        """Refuse a missing annotation file or image folder."""
        if self.ann_file and not fileio.exists(self.ann_file):
            raise UserError(
                f"dataset.ann_file: '{self.ann_file}' does not exist. Fix: "
                'check dataset.data_root and ann_file.'
            )
        if self._backend_args is None and not fileio.isdir(self.img_prefix):
            raise UserError(
                f"The image folder '{self.img_prefix}' does not exist "
                f"(dataset.data_root='{self.data_root}'). Fix: put or link the "
                'data there, or set dataset.data_root and data_prefix.'
            )

    @property
    def _backend_args(self) -> dict | None:
        """How the pipeline's loader reads files (not every path is local)."""
        for transform in self.pipeline.transforms:
            if getattr(transform, 'backend_args', None) is not None:
                return transform.backend_args
        return None

    def _find_samples(self) -> list:
        if not self.with_label:
            return super()._find_samples()
        root = self.img_prefix
        folders, _ = find_folders(root)
        if not folders:
            raise UserError(
                f"'{root}' has no class folders. Fix: one folder a class below "
                'it, or name a list of images in dataset.ann_file.'
            )
        if self.CLASSES is not None and len(self.CLASSES) != len(folders):
            raise UserError(
                f"'{root}' has {len(folders)} class folders ({listing(folders)})"
                f', and the data set {len(self.CLASSES)} classes. Fix: check '
                'dataset.data_root and data_prefix, or set dataset.classes.'
            )
        try:
            samples = super()._find_samples()
        except RuntimeError as e:  # mmpretrain's error for no file at all
            raise empty_folders_error(root, folders, self.extensions) from e
        used = {label for _, label in samples}
        empty = [f for f, i in self.folder_to_idx.items() if i not in used]
        if empty:
            raise empty_folders_error(root, empty, self.extensions)
        return samples

    def filter_data(self) -> list:
        data_list = super().filter_data()
        verify = self.verify
        if verify is None:
            verify = self.test_mode and self.on_corrupt == 'skip'
        return self._scan(data_list) if verify else data_list

    def _scan(self, data_list: list) -> list:
        """Decode every file; return the samples of those that are whole."""
        backend_args = self._backend_args
        start = time.perf_counter()

        def defects(chunk):
            found = (
                (d['img_path'], find_defect(d['img_path'], True, backend_args))
                for d in chunk
            )
            return [(path, defect) for path, defect in found if defect]

        chunks = [data_list[i : i + _CHUNK] for i in range(0, len(data_list), _CHUNK)]
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, 'sched_getaffinity')
            else os.cpu_count()
        )
        with ThreadPoolExecutor(min(cores, _MAX_THREADS)) as pool:
            for found in pool.map(defects, chunks):
                self.corrupt_files.update(found)
        bad = [f"'{p}' {d}" for p, d in self.corrupt_files.items()]
        kept = [d for d in data_list if d['img_path'] not in self.corrupt_files]
        summary = (
            f'{type(self).__name__}: {len(data_list) - len(kept)} of '
            f'{len(data_list)} images are corrupt'
        )
        if bad and (self.on_corrupt == 'refuse' or not kept):
            raise UserError(
                f'{summary}: {listing(bad)}. Fix: fetch the data again'
                + (", or set dataset.on_corrupt='skip'." if kept else '.')
            )
        if bad:
            print_log(
                f'{summary} and left out; metrics are over the other '
                f'{len(kept)}: {listing(bad, 20)}.',
                logger='current',
                level=logging.WARNING,
            )
        else:
            print_log(
                f'{summary} (scanned in {time.perf_counter() - start:.1f} s).',
                logger='current',
            )
        return kept

    def prepare_data(self, idx: int):
        """The sample after the pipeline; None (draw another) if it is corrupt."""
        data_info = self.get_data_info(idx)
        path = data_info['img_path']
        defect = find_defect(path, backend_args=self._backend_args)
        if defect is None:
            try:
                data = self.pipeline(data_info)
            except Exception:
                # The file's fault, or a transform's? Only the first is ours.
                defect = find_defect(path, True, self._backend_args)
                if defect is None:
                    raise
            else:
                self._corrupt_in_a_row = 0
                return data
        return self._pass_over(path, defect)

    def _pass_over(self, path: str, defect: str) -> None:
        """Count and report a corrupt file, or raise."""
        if self.on_corrupt == 'refuse':
            raise UserError(
                f"The image '{path}' {defect}. Fix: replace or remove the file, "
                "or set dataset.on_corrupt='skip'."
            )
        if self.test_mode:
            raise UserError(
                f"The image '{path}' {defect}, and a test does not replace "
                'images by others. Fix: replace or remove the file, or set '
                'dataset.verify=True to leave such files out.'
            )
        self._corrupt_in_a_row += 1
        if path not in self.corrupt_files:
            self.corrupt_files[path] = defect
            worker = get_worker_info()
            where = '' if worker is None else f' of worker {worker.id}'
            print_log(
                f"The image '{path}' {defect}: another sample takes its place "
                f'(corrupt file {self.num_corrupt}{where}).',
                logger='current',
                level=logging.WARNING,
            )
        if self._corrupt_in_a_row > self.max_refetch:
            raise UserError(
                f'{self._corrupt_in_a_row} images drawn in a row are corrupt '
                f"({self.num_corrupt} files, the last: '{path}' {defect}). Fix: "
                'fetch the data again.'
            )
        return None


@DATASETS.register_module()
class CheckedImageNet(CheckedMixin, ImageNet):
    """mmpretrain's ImageNet with the checks of :class:`CheckedMixin`.

    Args:
        data_root, split, data_prefix, ann_file, metainfo: Of mmpretrain's
            ``ImageNet``. The splits 'val' and 'test' set ``test_mode``.
        on_corrupt, verify: Of :class:`CheckedMixin`.
        **kwargs: Of ``CustomDataset``.
    """

    def __init__(self, data_root: str = '', split: str = '', **kwargs) -> None:
        kwargs.setdefault('test_mode', split in ('val', 'test'))
        super().__init__(data_root=data_root, split=split, **kwargs)


@DATASETS.register_module()
class CheckedImageFolder(CheckedMixin, CustomDataset):
    """mmpretrain's ``CustomDataset`` with the checks of :class:`CheckedMixin`.

    Set ``test_mode=True`` for data that is evaluated on.
    """
