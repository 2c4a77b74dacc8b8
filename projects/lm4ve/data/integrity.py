"""One policy for corrupt files, for every task.

Real data sets have empty, truncated and mislabeled files, and decoders do not always
report them. Two arguments decide what happens, wherever data is read:

``on_corrupt``
    - 'skip' continues without the corrupt file. In training another random sample takes
      its place, and a warning names each such file once; more than ``max_refetch``
      (1000) corrupt draws for a sample are an error. In a test nothing is replaced: the
      data set is scanned when it is loaded, corrupt files are left out, counted and
      logged, and metrics are over the samples that remain.
    - 'refuse' raises an error that names the file, or all files found by the scan.

``verify``
    Whether all files are read, in threads and by every rank, when the data set is
        loaded: None
    (default) with ``test_mode`` only, True always, False never, 'decode' always,
    decoding every file to its end. After ``verify=False`` a corrupt file of a test
    raises when it is read.

Data sets get both from :class:`IntegrityMixin`. Tools that convert files one by one
accept ``on_corrupt`` and use :class:`SkippedFiles`.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from lm4ve.errors import UserError, check, listing

POLICIES = ('skip', 'refuse')
#: They wait for files more than they compute.
_THREADS = 16
#: The number of messages about skipped files that are kept.
EXAMPLES = 10


class IntegrityMixin(BaseDataset):
    """Applies the policy to a data set with one file per sample.

    Inherit from it before the data set that it extends. A task implements :attr:`noun`,
    :meth:`path_of` and :meth:`find_defect`.

    Args:
        on_corrupt (str): 'skip' or 'refuse'; see :mod:`lm4ve.data.integrity`.
        verify (bool or 'decode', optional): See there.
        *args, **kwargs: Passed to the data set.

    Raises:
        UserError: A corrupt file was refused, or all files are corrupt.

    ``corrupt_files`` (path -> defect) has the files that *this process* found. Each
    worker of a data loader counts and logs its own, which never reach the main process.
    """

    #: What messages call a sample's file.
    noun = 'file'
    #: Whether the scan always decodes: for files that decode fast.
    scan_decodes = False

    def __init__(
        self,
        *args: Any,
        on_corrupt: str = 'skip',
        verify: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        check('dataset.on_corrupt', on_corrupt, choices=POLICIES)
        check('dataset.verify', verify, choices=(None, True, False, 'decode'))
        self.on_corrupt, self.verify = on_corrupt, verify
        self.corrupt_files: dict[str, str] = {}
        super().__init__(*args, **kwargs)

    def path_of(self, info: dict[str, Any]) -> str:
        """Return the file of an entry of the data list."""
        raise NotImplementedError

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return what is wrong with a file, in words that follow its name, or None.

        Called in threads, and in training for every sample that is drawn.

        Args:
            path (str): From :meth:`path_of`.
            decode (bool): Decode all of it, not only what costs little beside reading
                the sample.
        """
        raise NotImplementedError

    def find_defect_behind(self, error: Exception, path: str) -> str | None:
        """Return the defect of a file that made the pipeline fail, or None for a bug."""
        return self.find_defect(path, decode=True)

    def is_scanned(self) -> bool:
        """Return whether all files are read when the data set is loaded."""
        return bool(self.test_mode if self.verify is None else self.verify)

    @property
    def num_corrupt(self) -> int:
        """The number of corrupt files that this process found."""
        return len(self.corrupt_files)

    def filter_data(self) -> list[dict[str, Any]]:
        """Filter as the data set does, and leave out corrupt files if all are scanned."""
        data_list: list[dict[str, Any]] = super().filter_data()
        if not self.is_scanned():
            return data_list
        files = list(dict.fromkeys(map(self.path_of, data_list)))
        decode = self.scan_decodes or self.verify == 'decode'
        with ThreadPool(_THREADS) as pool:
            defects = pool.map(lambda path: self.find_defect(path, decode), files)
        self.corrupt_files |= {p: d for p, d in zip(files, defects, strict=True) if d}
        kept = [d for d in data_list if self.path_of(d) not in self.corrupt_files]
        text = f'{type(self).__name__}: {self.num_corrupt} of {len(files)} {self.noun}s are corrupt'
        if not self.corrupt_files:
            print_log(f'{text}.', logger='current')
            return kept
        named = listing([f"'{p}' {d}" for p, d in self.corrupt_files.items()], 20)
        text += f'; metrics are over the other {len(kept)} samples: {named}.'
        if self.on_corrupt == 'refuse' or not kept:
            raise UserError(f'{text} Fix: fetch the data again.')
        _warn(text)
        return kept

    def prepare_data(self, idx: int) -> Any:
        """Return the sample after the pipeline; None, for which another is drawn, if corrupt.

        Raises:
            UserError: The file is corrupt and refused, or part of a test.
        """
        path = self.path_of(self.get_data_info(idx))
        defect = self.find_defect(path)
        if defect is None:
            try:
                return super().prepare_data(idx)
            except Exception as e:
                # Either the file is corrupt or a transform has a bug.
                defect = self.find_defect_behind(e, path)
                if defect is None:
                    raise
        found = f"The {self.noun} '{path}' {defect}"
        if self.on_corrupt == 'refuse' or self.test_mode:
            raise UserError(
                f'{found}. Fix: fetch it again; in training '
                "dataset.on_corrupt='skip' replaces it, and dataset.verify='decode' leaves it out."
            )
        if path not in self.corrupt_files:
            self.corrupt_files[path] = defect
            worker = get_worker_info()
            where = f' of worker {worker.id}' if worker else ''
            _warn(
                f'{found}: another sample replaces it (corrupt file {self.num_corrupt}{where}).'
            )
        return None


@dataclass
class SkippedFiles:
    """Counts the files that a tool leaves out, by kind of defect.

    Args:
        on_corrupt (str): 'skip' or 'refuse'; see :mod:`lm4ve.data.integrity`.
        counts (Counter): Kind of defect -> number of files.
        examples (list[str]): The first messages.
    """

    on_corrupt: str = 'skip'
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check('on_corrupt', self.on_corrupt, choices=POLICIES)

    def add(self, kind: str, error: Exception) -> None:
        """Count a file that could not be read; with 'refuse', raise its error."""
        if self.on_corrupt == 'refuse':
            raise error
        self.merge({kind: 1}, [str(error)])

    def merge(self, counts: dict[str, int], examples: Iterable[str]) -> None:
        """Add the counts of another process or of an earlier run."""
        self.counts.update(counts)
        self.examples = [*self.examples, *examples][:EXAMPLES]

    def warn(self, done: str, total: int) -> None:
        """Log what was left out of ``total`` files; ``done`` names the step."""
        if self.counts:
            kinds = ', '.join(f'{kind}: {n}' for kind, n in self.counts.items())
            left_out = (
                f'{done}: left out {self.counts.total()} of {total} files ({kinds})'
            )
            _warn(f'{left_out}; for example: {self.examples[0]}')


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)
