"""Transforms of volumes: a checked reader, MONAI's own by name, and the packing."""

from typing import Any

import monai.transforms
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from monai.data.utils import affine_to_spacing

from llm4seg.structures import VolumeDataSample
from lm4ve.errors import UserError, build_from, listing
from lm4ve.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadVolume(BaseTransform):
    """Read ``img_path`` and, if given, ``seg_path`` by nibabel, through MONAI.

    Gives ``img``, a MONAI tensor float32 ``[C, H, W, D]`` with its affine, and ``seg``
    ``[1, H, W, D]``.

    Args:
        channels (int): How many channels a file has, such as four kinds of MR.
        num_classes (int): How many classes the labels of the file have, with the
            background.
        use (int, optional): The one channel that is kept. Default: all.
        binary (bool): Make one class of all but the background.

    Raises:
        UserError: A file is damaged, has another number of channels or a value that is
            no number; image and label differ in size, spacing or orientation; or a
            label is no class.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        use: int | None = None,
        binary: bool = False,
    ) -> None:
        #: How many channels and classes a file must have.
        self.channels = channels
        self.num_classes = num_classes
        #: The index of the one channel that is kept after reading; None keeps all.
        self.use = use
        #: Whether labels 1, 2, ... all become 1, "not background", after their check.
        self.binary = binary
        self.read = monai.transforms.LoadImage(
            reader='NibabelReader', image_only=True, ensure_channel_first=True
        )

    def transform(self, results: dict) -> dict:
        """Read and check the image and, where there is one, its label; add ``img``, ``seg``.

        Both are checked as they are in the files, before a channel is selected or classes
        are joined.
        """
        path = results['img_path']
        img = self._open(path)
        if len(img) != self.channels or img.dim() != 4:
            raise UserError(
                f"'{path}' has the shape {list(img.shape)}, but channels={self.channels} of "
                'LoadVolume. Fix: the channels of these files.'
            )
        if not torch.isfinite(img).all():
            raise UserError(
                f"'{path}' has voxels that are no numbers (NaN or infinite)."
            )
        label_path = results.get('seg_path')
        if label_path is not None:
            seg = self._open(label_path)
            self._compare(path, img, label_path, seg)
            if self.binary:
                seg = (seg > 0).to(seg.dtype)
            results['seg'] = seg
        if self.use is not None:
            img = img[self.use : self.use + 1]
        results['img'] = img
        return results

    def _open(self, path: str) -> Any:
        """Read a file as a MONAI tensor, ``[C, H, W, D]``."""
        try:
            return self.read(path)
        except Exception as error:
            # nibabel, zlib and MONAI raise a dozen kinds.
            cause = error.__cause__ or error
            raise UserError(
                f"'{path}' cannot be read as NIfTI: {cause}. Fix: copy it again."
            ) from error

    def _compare(self, path: str, img: Any, label_path: str, seg: Any) -> None:
        """Refuse a label whose voxels are not the image's, or that has an unknown class.

        Args:
            path (str): The image's file, for the message.
            img (MetaTensor): ``[C, H, W, D]`` with its affine.
            label_path (str): The label's file, for the message.
            seg (MetaTensor): ``[1, H, W, D]`` with its affine.
        """
        has_same_shape = seg.shape[1:] == img.shape[1:] and len(seg) == 1
        if not has_same_shape or not np.allclose(seg.affine, img.affine, atol=1e-2):
            raise UserError(
                f"'{label_path}' {list(seg.shape)}, spacing {_spacing(seg)}, is not of the "
                f"voxels of '{path}' {list(img.shape)}, spacing {_spacing(img)} (or of its "
                'orientation or origin). Fix: resample one of them.'
            )
        labels = torch.unique(seg.as_tensor()).tolist()
        unknown = [label for label in labels if label not in range(self.num_classes)]
        if unknown:
            raise UserError(
                f"'{label_path}' has the labels {listing(unknown)}, but "
                f'num_classes={self.num_classes} of LoadVolume. Fix: num_classes, or the file.'
            )


@TRANSFORMS.register_module()
class MonaiTransform(BaseTransform):
    """A dictionary transform of MONAI that draws its numbers from NumPy's seeded generator.

    Args:
        name (str): Its class in ``monai.transforms``, for example 'Spacingd'.
        **options: Its arguments. ``keys`` are 'img' and 'seg' unless given; a key that
            a sample lacks is left out.
    """

    def __init__(self, name: str, **options) -> None:
        transform_class = getattr(monai.transforms, name, None)
        if transform_class is None:
            raise UserError(f"MonaiTransform: monai.transforms has no '{name}'.")
        self.apply = build_from(
            transform_class,
            options,
            f'MonaiTransform of {name}',
            keys=('img', 'seg'),
            allow_missing_keys=True,
        )

    def transform(self, results: dict) -> dict:
        """Apply MONAI's transform, seeded from NumPy's generator if it is random."""
        if isinstance(self.apply, monai.transforms.Randomizable):
            # MMEngine does not seed its own generator, of which each worker has a copy.
            self.apply.set_random_state(seed=int(np.random.randint(2**31)))
        return self.apply(results)


@TRANSFORMS.register_module()
class PackVolume(BaseTransform):
    """Pack ``img`` and ``seg`` for :class:`llm4seg.VolumeSegmentor`."""

    def transform(self, results: dict) -> dict:
        """Return ``inputs`` (float32 ``[C, H, W, D]``) and ``data_samples``."""
        img = results['img']
        metainfo = dict(filename=str(results['img_path']), spacing=_spacing(img))
        sample = VolumeDataSample(metainfo=metainfo)
        if 'seg' in results:
            labels = results['seg'].as_tensor()[0].round().long()
            sample.gt_seg = labels
            # Read here, on the CPU: the model would wait for a GPU to read its copy.
            sample.set_metainfo(dict(highest_label=int(labels.max())))
        return dict(inputs=img.as_tensor().float().contiguous(), data_samples=sample)


def _spacing(volume: Any) -> list[float]:
    """Return the sides of a voxel in mm, one for each axis."""
    return [round(float(side), 4) for side in affine_to_spacing(volume.affine)]
