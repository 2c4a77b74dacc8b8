"""The ten tasks of the Medical Segmentation Decathlon, as they are downloaded."""

import json
from collections.abc import Sequence
from pathlib import Path

from monai.data import load_decathlon_datalist, partition_dataset

from llm4seg.datasets.volume_files import find_defect
from lm4ve.data.integrity import IntegrityMixin
from lm4ve.errors import UserError, check
from lm4ve.files import naming_storage_errors
from lm4ve.registry import DATASETS

_SPLITS = ('train', 'val', 'test')


@DATASETS.register_module()
class Decathlon(IntegrityMixin):
    """A task of MSD: a folder with ``dataset.json``, ``imagesTr`` and ``labelsTr``.

    The labels of its test set are not public, so that the labeled volumes are divided
    in three, and each is in one part only. The released code of MedVisionLlama divides
    volumes and their augmented copies together, so that a volume may be in two.

    Args:
        data_root (str): The folder.
        split (str): 'train', 'val' or 'test'.
        ratios (Sequence[float]): The size of each part.
        seed (int): Of the division.
        fraction (float): The part of the training volumes that is used, as in the
            paper's experiments with 10 and 30 %. The first volumes of the division are.
        on_corrupt, verify: See :class:`lm4ve.data.integrity.IntegrityMixin`. A volume is
            damaged if its image or its label is.
        **kwargs: Passed to :class:`mmengine.dataset.BaseDataset`.

    Raises:
        UserError: ``dataset.json`` is missing or damaged, or volumes were refused.
    """

    noun = 'volume'
    scan_decodes = True

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        ratios: Sequence[float] = (0.72, 0.18, 0.1),
        seed: int = 0,
        fraction: float = 1.0,
        **kwargs,
    ) -> None:
        check('dataset.split', split, choices=_SPLITS)
        check('dataset.fraction', fraction, above=0, most=1)
        # MMEngine's constructor loads the data list, which needs these.
        self.split = split
        #: The parts for training, validation and tests, and the seed of the division.
        self.ratios = ratios
        self.seed = seed
        #: The part of the training volumes that is used.
        self.fraction = fraction
        #: Image -> the file of its label.
        self._label_of: dict[str, str] = {}
        self.file = Path(data_root) / 'dataset.json'
        metainfo = dict(classes=_read_classes(self.file))
        super().__init__(data_root=data_root, metainfo=metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the image and the label of each volume of the split.

        MONAI shuffles and divides the labeled volumes; the training part is cut to its
        first ``fraction``.
        """
        pairs = load_decathlon_datalist(str(self.file), data_list_key='training')
        parts = partition_dataset(
            pairs, ratios=self.ratios, shuffle=True, seed=self.seed
        )
        # MONAI rounds the parts' sizes, which may leave volumes over: these join the last
        # part, the tests'.
        left_over = [pair for pair in pairs if not any(pair in part for part in parts)]
        parts[-1] += left_over
        part = parts[_SPLITS.index(self.split)]
        if self.split == 'train':
            # A small fraction of a small data set is still a volume to train with.
            num_used = max(1, round(self.fraction * len(part)))
            part = part[:num_used]
        data_list = []
        for pair in part:
            self._label_of[pair['image']] = pair['label']
            data_list.append(dict(img_path=pair['image'], seg_path=pair['label']))
        return data_list

    def path_of(self, info: dict) -> str:
        """Return the image of an entry."""
        return info['img_path']

    def files_of_libraries(self, path: str) -> list[str]:
        """Return the image and its label, which nibabel opens."""
        return [path, self._label_of[path]]

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return what is wrong with an image or its label, or None."""
        defect = find_defect(path, decode)
        if defect is not None:
            return defect
        label = self._label_of[path]
        defect = find_defect(label, decode)
        if defect is not None:
            return f"has the label '{label}', which {defect}"
        return None


def _read_classes(file: Path) -> tuple[str, ...]:
    """Return the names of the classes by their numbers, of a task's ``dataset.json``."""
    try:
        with naming_storage_errors(file):
            labels = json.loads(file.read_text())['labels']
        # In a few tasks the numbers, which are text, are not sorted.
        return tuple(labels[number] for number in sorted(labels, key=int))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"'{file}' is no dataset.json of MSD: {error}.") from error
