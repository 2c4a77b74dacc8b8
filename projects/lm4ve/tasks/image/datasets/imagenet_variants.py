"""ImageNet's test sets of other distributions, for models of its 1,000 classes.

Their folders are named by wnid, and -A and -R have 200 of the classes: a label is the
class's index among the 1,000, never the folder's position in the listing.
"""

import re
from collections.abc import Iterable, Sequence

from mmengine import fileio
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from lm4ve.data.suffixes import IMAGE_SUFFIXES
from lm4ve.errors import UserError, listing
from lm4ve.registry import DATASETS
from lm4ve.tasks.image.datasets.folders import CheckedImageMixin, refuse_empty
from lm4ve.tasks.image.datasets.synsets import class_indices

#: The 15 corruptions of ImageNet-C's benchmark, in the order of its paper (arXiv
#: 1903.12261), and AlexNet's top-1 error (%) with each, the mean over severities, by
#: which the paper and its code divide a model's error.
ALEXNET_ERRORS = dict(
    gaussian_noise=88.6428,
    shot_noise=89.4468,
    impulse_noise=92.2640,
    defocus_blur=81.9880,
    glass_blur=82.6268,
    motion_blur=78.5948,
    zoom_blur=79.8360,
    snow=86.6816,
    frost=82.6572,
    fog=81.9324,
    brightness=56.4592,
    contrast=85.3204,
    elastic_transform=64.6056,
    pixelate=71.7840,
    jpeg_compression=60.6500,
)
CORRUPTIONS = tuple(ALEXNET_ERRORS)
SEVERITIES = (1, 2, 3, 4, 5)


@DATASETS.register_module()
class ImageNetVariant(CheckedImageMixin, CustomDataset):
    """ImageNet-A, -R or -Sketch, in the layout of their archives::

        <data_root>/<data_prefix>/<wnid>/*.jpg

    Args:
        variant (str): 'a', 'r' or 'sketch'.
        data_root (str): The folder of the class folders.
        data_prefix (str): A folder between ('sketch' in ImageNet-Sketch's archive).
        on_corrupt, verify, max_pixels: See :class:`lm4ve.tasks.image.CheckedImageMixin`.
        **kwargs: Passed to mmpretrain's ``CustomDataset``; ``test_mode`` is on.

    ``gt_label`` is an index among the 1,000 classes. ``metainfo`` has all their
    names as ``classes``, and as ``subset`` the sorted indices of the variant's
    own, which :class:`lm4ve.tasks.image.SubsetAccuracy` reads.

    Raises:
        UserError: A class folder is missing, empty, or of a class that the variant
            lacks.
    """

    METAINFO = {'classes': IMAGENET_CATEGORIES}

    def __init__(
        self,
        variant: str,
        data_root: str,
        data_prefix: str = '',
        metainfo: dict | None = None,
        **kwargs,
    ) -> None:
        self.variant = variant
        self.class_indices = class_indices(variant)
        # SubsetAccuracy reads the subset.
        metainfo = dict(subset=sorted(self.class_indices.values()), **(metainfo or {}))
        kwargs.setdefault('test_mode', True)
        kwargs.setdefault('extensions', IMAGE_SUFFIXES)
        super().__init__(
            data_root=data_root, data_prefix=data_prefix, metainfo=metainfo, **kwargs
        )

    def groups(self) -> list[tuple[str, dict]]:
        """Return the folders that hold class folders, each with its samples' extra fields."""
        return [(self.img_prefix, {})]

    def load_data_list(self) -> list:
        """Return path and label of each image, by the wnid of its folder."""
        data_list = []
        for root, fields in self.groups():
            images_of_folder = self._list_folders(root)
            self._check_class_folders(root, images_of_folder)
            wnids = sorted(self.class_indices)
            refuse_empty(root, [wnid for wnid in wnids if not images_of_folder[wnid]])
            for wnid in wnids:
                label = self.class_indices[wnid]
                for path in images_of_folder[wnid]:
                    image = fileio.join_path(root, path)
                    data_list.append(dict(img_path=image, gt_label=label, **fields))
        return data_list

    def _check_class_folders(self, folder: str, names: Iterable[str]) -> None:
        """Refuse class folders that are not those of the variant."""
        # Folders of other names, such as __MACOSX, do not count.
        wnids = {name for name in names if re.fullmatch(r'n\d{8}', name)}
        expected = set(self.class_indices)
        missing = expected - wnids
        foreign = wnids - expected
        if missing or foreign:
            raise UserError(
                f"'{folder}' is not ImageNet-{self.variant.capitalize()}: of its "
                f'{len(self.class_indices)} class folders {len(missing)} are missing '
                f'({listing(sorted(missing))}), and {len(foreign)} are of other classes '
                f'({listing(sorted(foreign))}).'
            )


@DATASETS.register_module()
class ImageNetC(ImageNetVariant):
    """ImageNet-C, all corruptions and severities in one data set::

        <data_root>/<corruption>/<severity>/<wnid>/*.JPEG

    Args:
        data_root (str): The folder of the corruptions' folders.
        corruptions (sequence of str, optional): Default: the benchmark's 15.
            Others that have a folder (the four extra ones) can be named.
        severities (sequence of int): Default: 1 to 5.
        **kwargs: Passed to :class:`ImageNetVariant`.

    Samples carry ``corruption`` and ``severity``; name both in the
    ``meta_keys`` of ``PackInputs`` for :class:`lm4ve.tasks.image.CorruptionAccuracy`.
    The whole set has 3.75 million images: the scan for corrupt files takes about as
    long as decoding them in the test (``verify=False`` leaves it out).
    """

    def __init__(
        self,
        data_root: str,
        corruptions: Sequence[str] | None = None,
        severities: Sequence[int] = SEVERITIES,
        metainfo: dict | None = None,
        **kwargs,
    ) -> None:
        if corruptions is None:
            corruptions = CORRUPTIONS
        self.corruptions = tuple(corruptions)
        self.severities = tuple(severities)
        # CorruptionAccuracy reads them, to find groups of which no sample was tested.
        metainfo = dict(
            corruptions=self.corruptions, severities=self.severities, **(metainfo or {})
        )
        super().__init__(variant='c', data_root=data_root, metainfo=metainfo, **kwargs)

    def groups(self) -> list[tuple[str, dict]]:
        """Return the folder of each corruption and severity, with both as extra fields."""
        groups = []
        for corruption in self.corruptions:
            for severity in self.severities:
                folder = fileio.join_path(self.img_prefix, corruption, str(severity))
                groups.append((folder, dict(corruption=corruption, severity=severity)))
        return groups
