"""What ``tests/data/test_ranks.py`` runs in each of two processes: RANK and a folder.

Each writes what it saw into ``<rank>.json``, by name.
"""

import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import torch.distributed as dist

from lm4ve.data import ranks
from lm4ve.errors import StorageError, UserError
from lm4ve.tasks.image import CheckedImageFolder
from lm4ve.tasks.motion import MotionDataset
from lm4ve.tasks.vqa import CaptionFiles, VQAFiles
from lm4ve.text.dataset import TextDataset


def message_of(make, kind: type[Exception] = UserError) -> str:
    """Return the message of the error that a call raises."""
    try:
        make()
    except kind as error:
        return str(error)
    return ''


def fail_to_read() -> None:
    """Raise what a worn-out disk does."""
    raise OSError('disk is worn out')


def entries_of(data) -> list[dict]:
    """Return all entries of a data set, with what is drawn for them."""
    np.random.seed(0)
    return [data.get_data_info(i) for i in range(len(data))]


def images(folder: Path) -> dict:
    """Each rank reads half of the images; both leave out both damaged ones."""
    read = Readings(CheckedImageFolder)
    options = dict(data_root=str(folder / 'images'), test_mode=True, on_corrupt='skip')
    data = read.make(**options)
    return dict(
        read=sorted(Path(path).name for path in read.paths),
        kept=len(data),
        corrupt=sorted(Path(path).name for path in data.corrupt_files),
    )


class Readings:
    """Builds a data set of a class and notes the files that its check reads.

    Attributes:
        paths (list[str]): These files.
    """

    def __init__(self, data_class: type) -> None:
        self.paths: list[str] = []
        notes = self.paths
        lock = threading.Lock()

        class Noted(data_class):
            def find_defect(self, path: str, decode: bool = False) -> str | None:
                with lock:
                    notes.append(path)
                return super().find_defect(path, decode)

        self._class = Noted

    def make(self, **options):
        """Build the data set."""
        return self._class(pipeline=[], **options)


def questions(folder: Path) -> dict:
    """Only one process of the machine reads the texts; both have the same entries."""
    options = dict(ann_file='questions.jsonl', data_root=str(folder / 'images'))
    data = VQAFiles(**options, pipeline=[], test_mode=True, on_corrupt='skip')
    captions = CaptionFiles('captions.jsonl', str(folder / 'images'), num_negatives=1)
    own_bytes = data.data_bytes.flags.owndata
    return dict(
        questions=entries_of(data),
        captions=entries_of(captions),
        owns_bytes=own_bytes,
        corrupt=sorted(Path(path).name for path in data.corrupt_files),
    )


class Killed(TextDataset):
    """A list whose reading needs more memory than there is."""

    def load_data_list(self) -> list[dict]:
        os.kill(os.getpid(), 9)
        return []


def errors(folder: Path) -> dict:
    """All ranks raise what happened to the one that works."""
    options = dict(ann_file='none.jsonl', data_root=str(folder / 'images'))
    kind = OSError if dist.get_rank() == 0 else UserError
    # One file that storage does not give, and that one rank reads.
    lost = dict(data_root=str(folder / 'lost'), test_mode=True, on_corrupt='skip')
    asked = dict(ann_file='questions.jsonl', pipeline=[], **lost)
    return dict(
        lost=message_of(lambda: CheckedImageFolder(**lost), StorageError),
        asked=message_of(lambda: VQAFiles(**asked), StorageError),
        broken=message_of(lambda: ranks.once_a_machine(fail_to_read), kind),
        missing=message_of(lambda: VQAFiles(**options)),
        killed=message_of(lambda: Killed(pipeline=[])),
        cache=message_of(lambda: MotionDataset(str(folder / 'damaged.cache'))),
    )


def main() -> None:
    rank = int(sys.argv[1])
    folder = Path(sys.argv[2])
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2
    )
    seen = {}
    for part in (images, questions, errors):
        seen[part.__name__] = part(folder)
        dist.barrier()
    temporary = Path(os.environ['TMPDIR'])
    seen['left'] = [path.name for path in temporary.glob('lm4ve-*')]
    Path(folder, f'{rank}.json').write_text(json.dumps(seen))
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
