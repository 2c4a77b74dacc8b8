"""One rule for damaged files, for every task.

Real data sets have empty, truncated and mislabeled files, and decoders do not always
report them. Training replaces a damaged sample; what is scored is never replaced, since a
metric would then be over other samples than it says.

==============  =================================  ======================================
``on_corrupt``  training                           validation and test (``test_mode``)
==============  =================================  ======================================
None (default)  another random sample takes its    an error that names the files, before
                place, and a warning names each    the first step
                file once
'skip'          the same                           they are left out, and every metric
                                                   says "n of m samples"
'refuse'        an error that names the file       the same as None
==============  =================================  ======================================

More than ``max_refetch`` (1000) damaged draws for one sample are an error, too.

``verify`` says whether all files are read when the data set is loaded, in threads, each
file by one rank: None (default) in what is scored only, True always, False never,
'decode' always, decoding every file to its end. Damaged files that this finds in a
training set are left out at once. After ``verify=False`` a damaged file of a test is an
error when it is read.

A file that is larger than a field allows (``max_pixels`` of images) is not damaged either:
that is an error in training, too, whatever ``on_corrupt`` is.

A file that is not there is damaged. What storage does not give (EIO, EACCES, ESTALE) is
not: nothing is known of the file. This is a :class:`lm4ve.errors.StorageError` in
training, too, with which the commands exit with 1, so that a restarted job tries again.

Data sets get all of this from :class:`IntegrityMixin`. The runner sets ``test_mode`` in
whatever it scores (:mod:`lm4ve.runner.scored_data`). Tools that convert files one by one
accept ``on_corrupt='skip'`` or ``'refuse'`` and use :class:`SkippedFiles`.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from lm4ve.data.ranks import gather, own_share
from lm4ve.errors import (
    DamagedFilesError,
    StorageError,
    TooLargeError,
    UserError,
    check,
    listing,
)
from lm4ve.files import map_in_threads, naming_storage_errors, require_given

#: What tools do with a damaged file.
POLICIES = ('skip', 'refuse')
#: The number of files that an error names.
NAMED = 20
#: The number of messages about skipped files that are kept.
EXAMPLES = 10


@dataclass
class Verdicts:
    """What a scan has found.

    Attributes:
        corrupt (dict[str, str]): Path -> defect.
        not_given (list[str]): What the storage said of files that it did not give.
        too_large (list[str]): The errors of files that are larger than a field allows.
    """

    corrupt: dict[str, str] = field(default_factory=dict)
    not_given: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)


class IntegrityMixin(BaseDataset):
    """Applies the rule to a data set with one file per sample, or a few.

    Inherit from it before the data set that it extends. A task implements :attr:`noun`,
    :meth:`path_of` and :meth:`find_defect`.

    Args:
        on_corrupt (str, optional): None, 'skip' or 'refuse'; see
            :mod:`lm4ve.data.integrity`.
        verify (bool or 'decode', optional): See there.
        *args, **kwargs: Passed to the data set.

    Raises:
        DamagedFilesError: A damaged file was refused, or all files are damaged.
        StorageError: Storage did not give a file.

    ``corrupt_files`` (path -> defect) has the files that *this process* found. Each
    worker of a data loader counts and logs its own, which never reach the main process.
    ``num_left_out`` is the number of samples that are not in the data set because of them.
    """

    #: What messages call a sample's file.
    noun = 'file'
    #: Whether the data set makes its files where they are missing, as demos do.
    makes_files = False
    #: Whether the scan always decodes: for files that decode fast.
    scan_decodes = False
    #: Whether the ranks share out the scan. Not where one of them loads the data for all.
    ranks_share_scan = True

    def __init__(
        self,
        *args: Any,
        on_corrupt: str | None = None,
        verify: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        check('dataset.on_corrupt', on_corrupt, choices=(None, *POLICIES))
        check('dataset.verify', verify, choices=(None, True, False, 'decode'))
        self.on_corrupt = on_corrupt
        self.verify = verify
        self.corrupt_files: dict[str, str] = {}
        self.num_left_out = 0
        super().__init__(*args, **kwargs)

    def path_of(self, info: dict[str, Any]) -> str:
        """Return the file of an entry of the data list, or another name of the sample."""
        raise NotImplementedError

    def path_at(self, idx: int) -> str:
        """Return the file of sample ``idx``."""
        return self.path_of(self.get_data_info(idx))

    def files_of_libraries(self, path: str) -> list[str]:
        """Return the files of a sample that libraries open by themselves.

        Not every library says why it failed, so these are read once more before they
        count as damaged.

        Args:
            path (str): From :meth:`path_of`.
        """
        return []

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return what is wrong with a file, in words that follow its name, or None.

        Called in threads, and in training for every sample that is drawn. It may raise
        whatever the storage raises (:func:`lm4ve.files.is_storage_error`).

        Args:
            path (str): From :meth:`path_of`.
            decode (bool): Decode all of it, not only what costs little beside reading
                the sample.
        """
        raise NotImplementedError

    def find_defect_behind(self, error: Exception, path: str) -> str | None:
        """Return the defect of a file that made the pipeline fail, or None for a bug."""
        return self.find_defect_if_given(path, decode=True)

    def find_defect_if_given(self, path: str, decode: bool = False) -> str | None:
        """Return what :meth:`find_defect` does, of a file that storage gives.

        Raises:
            StorageError: Storage does not give it.
        """
        with naming_storage_errors(path):
            defect = self.find_defect(path, decode)
        if defect is not None:
            for file in self.files_of_libraries(path):
                require_given(file)
        return defect

    def is_scanned(self) -> bool:
        """Return whether all files are read when the data set is loaded."""
        if self.verify is None:
            return bool(self.test_mode)
        return bool(self.verify)

    @property
    def refuses(self) -> bool:
        """Whether a damaged sample is an error."""
        if self.on_corrupt == 'refuse':
            return True
        return bool(self.test_mode) and self.on_corrupt is None

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
        summary = f'{summary}: {listing(defects, NAMED)}'
        remaining = f'{len(kept)} of {len(data_list)} samples'
        if not kept:
            raise DamagedFilesError(
                f'{summary}. None is left. Fix: fetch the data again.'
            )
        if self.refuses:
            raise DamagedFilesError(
                f'{summary}. Fix: fetch them again, or {self._advice(remaining)}.'
            )
        self.num_left_out += len(data_list) - len(kept)
        use = 'metrics are over' if self.test_mode else 'training draws from'
        _warn(f'{summary}; {use} {remaining}.')
        return kept

    def _advice(self, remaining: str) -> str:
        """Return what a user may do about damage, in words that follow 'Fix: ...'."""
        if self.test_mode:
            return f"dataset.on_corrupt='skip', which scores {remaining}"
        return "dataset.on_corrupt='skip', which replaces them in training"

    def leave_out(
        self,
        what: str,
        names: Sequence[object],
        total: int,
        count: int | None = None,
        samples: int | None = None,
    ) -> None:
        """Warn of entries that are left out, or raise an error, by the rule.

        For damage of another kind than that of a file, such as a question without words.

        Args:
            what (str): What is wrong with them, for example 'have an empty question'.
            names (Sequence): What names each of them, or the first ones.
            total (int): How many entries there were.
            count (int, optional): How many have it. Default: those that are named.
            samples (int, optional): How many samples are left out for it. Default: so
                many as have it.

        Raises:
            UserError: They are refused.
        """
        if count is None:
            count = len(names)
        if samples is None:
            samples = count
        if count == 0:
            return
        summary = (
            f'{type(self).__name__}: {count} of {total} entries {what}: '
            f'{listing(names, NAMED)}'
        )
        if self.refuses:
            advice = self._advice(f'{total - samples} of {total} samples')
            raise UserError(f'{summary}. Fix: mend them, or {advice}.')
        self.num_left_out += samples
        _warn(f'{summary}. They are left out.')

    def _scan(self, paths: list[str]) -> None:
        """Read files in threads, and note the corrupt ones.

        The ranks share them out, and each of them notes what all have found.

        Raises:
            UserError: The ranks have different files.
            TooLargeError: Some are larger than a field allows.
            StorageError: Storage does not give some of them.
        """
        if self.ranks_share_scan:
            counts = gather(len(paths))
            if len(set(counts)) > 1:
                raise UserError(
                    f'{type(self).__name__} has another number of {self.noun}s on each rank '
                    f'({listing(counts)}). Fix: the same data on every machine.'
                )
            # All ranks learn of every error, so that none waits for another.
            parts = gather(self._read_files(own_share(paths)))
        else:
            parts = [self._read_files(paths)]
        not_given: list[str] = []
        too_large: list[str] = []
        for found in parts:
            self.corrupt_files |= found.corrupt
            not_given += found.not_given
            too_large += found.too_large
        if not_given:
            raise StorageError(
                f'{type(self).__name__}: {len(not_given)} of {len(paths)} {self.noun}s were not '
                f'given by the storage: {listing(not_given, NAMED)}'
            )
        if too_large:
            raise TooLargeError(
                f'{type(self).__name__}: {len(too_large)} of {len(paths)} {self.noun}s are too '
                f'large: {listing(too_large, NAMED)}'
            )

    def _read_files(self, paths: list[str]) -> Verdicts:
        """Read files in threads."""
        decode = self.scan_decodes or self.verify == 'decode'

        def judge(path: str) -> str | StorageError | TooLargeError | None:
            """Return the file's defect, or the error that it is, or None."""
            try:
                return self.find_defect_if_given(path, decode)
            except (StorageError, TooLargeError) as error:
                return error

        found = Verdicts()
        for path, verdict in zip(paths, map_in_threads(judge, paths), strict=True):
            if isinstance(verdict, StorageError):
                found.not_given.append(str(verdict))
            elif isinstance(verdict, TooLargeError):
                found.too_large.append(str(verdict))
            elif verdict:
                found.corrupt[path] = verdict
        return found

    def find_defect_when_drawn(self, path: str) -> str | None:
        """Return what is wrong with the file of a sample that is drawn, or None.

        Raises:
            StorageError: Storage does not give it.
        """
        return self.find_defect_if_given(path)

    def prepare_data(self, idx: int) -> Any:
        """Return the sample after the pipeline; None, for which another is drawn, if corrupt.

        Raises:
            UserError: The file is corrupt and refused, or part of a test.
            StorageError: Storage does not give the file.
        """
        path = self.path_at(idx)
        defect = self.find_defect_when_drawn(path)
        if defect is None:
            try:
                with naming_storage_errors(path):
                    return super().prepare_data(idx)
            except StorageError:
                raise
            except Exception as error:
                # Either the file is corrupt or a transform has a bug.
                defect = self.find_defect_behind(error, path)
                if defect is None:
                    raise
        if self.refuses or self.test_mode:
            raise UserError(
                f"The {self.noun} '{path}' {defect}. Fix: fetch it again; "
                "dataset.verify='decode' finds all that are damaged when the data set is loaded."
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
