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
    Whether all files are read when the data set is loaded, in threads, each file by one
    rank: None (default) with ``test_mode`` only, True always, False never, 'decode'
    always, decoding every file to its end. After ``verify=False`` a corrupt file of a
    test raises an error when it is read. None does not read again what was whole at an
    earlier start and has the same size and time of change
    (:mod:`lm4ve.data.verdicts`).

Data sets get both from :class:`IntegrityMixin`. Tools that convert files one by one
accept ``on_corrupt`` and use :class:`SkippedFiles`.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from lm4ve.data.ranks import gather, own_share
from lm4ve.data.verdicts import Stamp, WholeFiles, stamps_of
from lm4ve.errors import UserError, check, listing
from lm4ve.files import map_in_threads
from lm4ve.runner.same_data import pixel_versions

POLICIES = ('skip', 'refuse')
#: The number of messages about skipped files that are kept.
EXAMPLES = 10


@dataclass
class Verdicts:
    """What a scan has found.

    Attributes:
        corrupt (dict[str, str]): Path -> defect.
        whole (dict[str, Stamp]): Path -> stamp from before it was read, of the files that
            were read and are whole.
    """

    corrupt: dict[str, str] = field(default_factory=dict)
    whole: dict[str, Stamp] = field(default_factory=dict)


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
    #: Whether the ranks share out the scan. Not where one of them loads the data for all.
    ranks_share_scan = True
    #: What verdicts are remembered under; None: they are not, since :meth:`find_defect`
    #: depends on more than the file.
    remembered_as: str | None = None

    def __init__(
        self,
        *args: Any,
        on_corrupt: str = 'skip',
        verify: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        check('dataset.on_corrupt', on_corrupt, choices=POLICIES)
        check('dataset.verify', verify, choices=(None, True, False, 'decode'))
        self.on_corrupt = on_corrupt
        self.verify = verify
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
        if self.verify is None:
            return bool(self.test_mode)
        return bool(self.verify)

    @property
    def num_corrupt(self) -> int:
        """The number of corrupt files that this process found."""
        return len(self.corrupt_files)

    def filter_data(self) -> list[dict[str, Any]]:
        """Filter as the data set does, and leave out corrupt files if all are scanned."""
        data_list: list[dict[str, Any]] = super().filter_data()
        if not self.is_scanned():
            return data_list
        # Several samples may be of one file.
        paths = list(dict.fromkeys(self.path_of(info) for info in data_list))
        self._scan(paths)
        summary = (
            f'{type(self).__name__}: {self.num_corrupt} of {len(paths)} {self.noun}s '
            'are corrupt'
        )
        if not self.corrupt_files:
            print_log(f'{summary}.', logger='current')
            return data_list
        kept = []
        for info in data_list:
            if self.path_of(info) not in self.corrupt_files:
                kept.append(info)
        defects = [f"'{path}' {defect}" for path, defect in self.corrupt_files.items()]
        message = (
            f'{summary}; metrics are over the other {len(kept)} samples: '
            f'{listing(defects, 20)}.'
        )
        if self.on_corrupt == 'refuse' or not kept:
            raise UserError(f'{message} Fix: fetch the data again.')
        _warn(message)
        return kept

    def _scan(self, paths: list[str]) -> None:
        """Read files in threads, and note the corrupt ones.

        The ranks share them out, and each of them notes what all have found.

        Raises:
            UserError: The ranks have different files.
        """
        if not self.ranks_share_scan:
            found = self._read_files(paths)
            self.corrupt_files |= found.corrupt
            self._remember(found.whole)
            return
        counts = gather(len(paths))
        if len(set(counts)) > 1:
            raise UserError(
                f'{type(self).__name__} has another number of {self.noun}s on each rank '
                f'({listing(counts)}). Fix: the same data on every machine.'
            )
        whole: dict[str, Stamp] = {}
        for found in gather(self._read_files(own_share(paths))):
            self.corrupt_files |= found.corrupt
            whole |= found.whole
        if is_main_process():
            self._remember(whole)

    def _read_files(self, paths: list[str]) -> Verdicts:
        """Read files in threads, but for those that are remembered as whole."""
        decode = self.scan_decodes or self.verify == 'decode'
        stamps = stamps_of(paths)
        remembered: set[str] = set()
        if self.memory is not None:
            remembered = self.memory.unchanged(stamps)
        unread = [path for path in paths if path not in remembered]
        defects = map_in_threads(lambda path: self.find_defect(path, decode), unread)
        found = Verdicts()
        for path, defect in zip(unread, defects, strict=True):
            stamp = stamps[path]
            if defect:
                found.corrupt[path] = defect
            elif stamp is not None:
                found.whole[path] = stamp
        return found

    @property
    def memory(self) -> WholeFiles | None:
        """What remembers whole files; None where the user wants them read, or it cannot."""
        if self.remembered_as is None or self.verify is not None:
            return None
        versions = sorted(pixel_versions().items())
        return WholeFiles(f'{self.remembered_as} {self.scan_decodes} {versions}')

    def _remember(self, whole: Mapping[str, Stamp]) -> None:
        """Remember whole files, if anything remembers them."""
        if self.memory is not None:
            self.memory.add(whole)

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
            except Exception as error:
                # Either the file is corrupt or a transform has a bug.
                defect = self.find_defect_behind(error, path)
                if defect is None:
                    raise
        if self.on_corrupt == 'refuse' or self.test_mode:
            raise UserError(
                f"The {self.noun} '{path}' {defect}. Fix: fetch it again; in training "
                "dataset.on_corrupt='skip' replaces it, and dataset.verify='decode' leaves it out."
            )
        if path not in self.corrupt_files:
            self.corrupt_files[path] = defect
            self._warn_of_replacement(path, defect)
        return None

    def _warn_of_replacement(self, path: str, defect: str) -> None:
        """Log that another sample replaces a corrupt file, and how many this worker found."""
        count = f'corrupt file {self.num_corrupt}'
        worker = get_worker_info()
        if worker:
            count += f' of worker {worker.id}'
        _warn(
            f"The {self.noun} '{path}' {defect}: another sample replaces it ({count})."
        )


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
        """Log how many files were left out and why, if any were.

        Args:
            done (str): The step, which begins the message, for example 'write shards'.
            total (int): How many files there were.
        """
        if not self.counts:
            return
        kinds = ', '.join(f'{kind}: {count}' for kind, count in self.counts.items())
        _warn(
            f'{done}: left out {self.counts.total()} of {total} files ({kinds}); '
            f'for example: {self.examples[0]}'
        )


def _warn(message: str) -> None:
    """Log a warning to the run's logger."""
    print_log(message, logger='current', level=logging.WARNING)
