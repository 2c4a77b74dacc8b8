"""Imperfect data is treated by one policy, in one set of words, for every task.

Real data sets have empty, truncated and mislabeled files, and decoders do not always
say so. Two arguments decide what becomes of them, wherever data is read:

``on_corrupt``
    - 'skip' goes on without the corrupt file. In training another random sample
      takes its place, and a warning names each such file once; after
      ``max_refetch`` (1000) corrupt draws in a row it raises. A test does not
      replace samples by others: there the data set is scanned up front, and corrupt
      files are left out, counted and logged, so that metrics are over the samples
      that remain.
    - 'refuse' raises an error that names the file; if the data set is scanned, all
      corrupt files at once.

``verify``
    Whether all files are read, in threads and by every rank, when the data set is
    loaded: None (the default) with ``test_mode`` only, True always, False never,
    'decode' as True, and every file is decoded to its end. After ``verify=False`` a
    corrupt file of a test raises when it is read.

Data sets get both from :class:`IntegrityMixin`; tools that convert files one by one
take ``on_corrupt`` and use :class:`SkippedFiles`.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from lm4ve.errors import UserError, listing

POLICIES = ('skip', 'refuse')
_SCANS = (None, True, False, 'decode')
#: They wait for files more than they compute.
_THREADS = 16
#: How many examples of skipped files are kept.
EXAMPLES = 10


def check_policy(on_corrupt: str, name: str = 'dataset.on_corrupt') -> str:
    """Return the policy, or refuse one that does not exist.

    Args:
        on_corrupt (str): 'skip' or 'refuse'.
        name (str): What the error calls the argument.

    Raises:
        UserError: It is neither.
    """
    if on_corrupt not in POLICIES:
        raise UserError(f"{name}='{on_corrupt}' must be one of {listing(POLICIES)}.")
    return on_corrupt


class IntegrityMixin(BaseDataset):  # type: ignore[misc]
    """The policy of this module, for data sets with one file a sample.

    To be named before the data set that it extends. A task says what its files
    are: :attr:`noun`, :meth:`path_of` and :meth:`find_defect`.

    Args:
        on_corrupt (str): 'skip' or 'refuse'; see :mod:`lm4ve.tasks.base.integrity`.
        verify (bool or 'decode', optional): See there.
        *args, **kwargs: Passed to the data set.

    Raises:
        UserError: A corrupt file was refused; nothing but corrupt files was found.

    ``num_corrupt`` and ``corrupt_files`` (path -> defect) describe the files found by
    *this process*. Each dataloader worker has its own copy: what workers skip is
    counted and logged there (the warning names the worker) and never reaches
    the main process; two workers may both name a file, and so may an epoch's
    new workers if ``persistent_workers`` is off. MMEngine shows the warnings of
    the first rank only.
    """

    #: What messages call a sample's file.
    noun = 'file'
    #: The scan always decodes: for files that are decoded fast.
    scan_decodes = False

    def __init__(
        self, *args: Any, on_corrupt: str = 'skip', verify: bool | str | None = None, **kwargs: Any
    ) -> None:
        self.on_corrupt = check_policy(on_corrupt)
        if verify not in _SCANS:
            raise UserError(f'dataset.verify={verify!r} must be one of {listing(_SCANS)}.')
        self.verify = verify
        self.corrupt_files: dict[str, str] = {}
        self._corrupt_in_a_row = 0
        super().__init__(*args, **kwargs)

    # ------------------------------------------------------ what a task supplies
    def path_of(self, info: dict[str, Any]) -> str:
        """Return the file behind an entry of the data list."""
        raise NotImplementedError

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Say what is wrong with a file, in words that follow its name, or None.

        Called in threads, and in training once for every sample that is drawn.

        Args:
            path (str): What :meth:`path_of` returned.
            decode (bool): Decode all of it. Without, only what costs little beside
                reading the sample.
        """
        raise NotImplementedError

    def find_defect_behind(self, error: Exception, path: str) -> str | None:
        """Say which defect of a file made the pipeline fail, or None: a bug did."""
        return self.find_defect(path, decode=True)

    def is_scanned(self) -> bool:
        """Return whether all files are read when the data set is loaded."""
        return bool(self.test_mode if self.verify is None else self.verify)

    # ------------------------------------------------------------------ the scan
    @property
    def num_corrupt(self) -> int:
        """How many distinct corrupt files this process has met."""
        return len(self.corrupt_files)

    def filter_data(self) -> list[dict[str, Any]]:
        """Filter as the data set does, then leave out corrupt files."""
        data_list = super().filter_data()
        return self._scan(data_list) if self.is_scanned() else data_list

    def _scan(self, data_list: list[dict[str, Any]]) -> list[dict[str, Any]]:
        start = time.perf_counter()
        paths = [self.path_of(d) for d in data_list]
        files = list(dict.fromkeys(paths))  # a file of several samples is read once
        self.corrupt_files.update(self._find_defects(files))
        kept = [
            d for d, path in zip(data_list, paths, strict=True) if path not in self.corrupt_files
        ]
        bad = [f"'{p}' {d}" for p, d in self.corrupt_files.items()]
        summary = f'{type(self).__name__}: {len(bad)} of {len(files)} {self.noun}s are corrupt'
        if bad and (self.on_corrupt == 'refuse' or not kept):
            raise UserError(
                f'{summary}: {listing(bad)}. Fix: fetch the data again'
                + (", or set dataset.on_corrupt='skip'." if kept else '.')
            )
        if bad:
            _warn(
                f'{summary} and left out; metrics are over the other {len(kept)}'
                f'{" samples" if len(files) < len(paths) else ""}: {listing(bad, 20)}.'
            )
        else:
            seconds = time.perf_counter() - start
            print_log(f'{summary} (scanned in {seconds:.1f} s).', logger='current')
        return kept

    def _find_defects(self, paths: list[str]) -> Iterable[tuple[str, str]]:
        decode = self.scan_decodes or self.verify == 'decode'

        with ThreadPool(_THREADS) as pool:
            defects = pool.map(lambda path: self.find_defect(path, decode), paths)
        return [(path, d) for path, d in zip(paths, defects, strict=True) if d]

    # ------------------------------------------------------------------- reading
    def prepare_data(self, idx: int) -> Any:
        """Return the sample after the pipeline; None (draw another) if it is corrupt.

        Raises:
            UserError: It is corrupt, and refused or part of a test; too many in a
                row were.
        """
        path = self.path_of(self.get_data_info(idx))
        defect = self.find_defect(path)
        if defect is None:
            try:
                data = super().prepare_data(idx)
            except Exception as e:
                # The file's fault, or a transform's? Only the first is ours.
                defect = self.find_defect_behind(e, path)
                if defect is None:
                    raise
            else:
                self._corrupt_in_a_row = 0
                return data
        return self._pass_over(path, defect)

    def _pass_over(self, path: str, defect: str) -> None:
        """Count and report a corrupt file, or raise."""
        found = f"The {self.noun} '{path}' {defect}"
        fix = 'Fix: replace the file or take it out of the data set, or set dataset.'
        if self.on_corrupt == 'refuse':
            raise UserError(f"{found}. {fix}on_corrupt='skip'.")
        if self.test_mode:
            deeper = "'decode'" if self.is_scanned() else 'True'
            raise UserError(
                f'{found}, and a test does not replace {self.noun}s by others. '
                f'{fix}verify={deeper} to leave such files out.'
            )
        self._corrupt_in_a_row += 1
        if path not in self.corrupt_files:
            self.corrupt_files[path] = defect
            worker = get_worker_info()
            where = '' if worker is None else f' of worker {worker.id}'
            _warn(
                f'{found}: another sample takes its place (corrupt file {self.num_corrupt}{where}).'
            )
        if self._corrupt_in_a_row > self.max_refetch:
            raise UserError(
                f'{self._corrupt_in_a_row} {self.noun}s drawn in a row are corrupt '
                f"({self.num_corrupt} files, the last: '{path}' {defect}). Fix: "
                'fetch the data again.'
            )


@dataclass
class SkippedFiles:
    """What a tool that reads files one by one has left out, counted by kind.

    Args:
        on_corrupt (str): 'skip' or 'refuse'; see :mod:`lm4ve.tasks.base.integrity`.
        counts (Counter): Kind of defect -> number of files.
        examples (list[str]): The messages of the first files.

    Raises:
        UserError: There is no such policy.
    """

    on_corrupt: str = 'skip'
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_policy(self.on_corrupt, 'on_corrupt')

    def add(self, kind: str, error: Exception) -> None:
        """Count a file that could not be read; with 'refuse', raise its error."""
        if self.on_corrupt == 'refuse':
            raise error
        self.merge({kind: 1}, [str(error)])

    def merge(self, counts: dict[str, int], examples: Iterable[str]) -> None:
        """Add what another process or an earlier run has counted."""
        self.counts.update(counts)
        self.examples = [*self.examples, *examples][:EXAMPLES]

    def warn(self, done: str, total: int) -> None:
        """Log what was left out of ``total`` files, if anything was.

        Args:
            done (str): What the message begins with, for example 'preprocess'.
            total (int): How many files there were.
        """
        if self.counts:
            kinds = ', '.join(f'{kind}: {n}' for kind, n in self.counts.items())
            _warn(
                f'{done}: left out {self.counts.total()} of {total} files ({kinds}); '
                f'for example: {self.examples[0]}'
            )


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
