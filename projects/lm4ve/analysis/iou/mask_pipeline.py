"""Sends images and their masks through a config's own test pipeline.

What the model sees is cut and scaled, and the mask has to be cut and scaled in the same
way. The mask follows the pipeline's geometric transforms one by one and takes the
nearest pixel. A transform that it cannot follow is refused.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from mmengine.dataset import pseudo_collate

from lm4ve.analysis.iou.mask_datasets import Item
from lm4ve.analysis.iou.pseudo_masks import IGNORED
from lm4ve.errors import UserError

#: Transforms that leave every pixel where it is, by class name.
STILL = ('LoadImageFromFile', 'Normalize', 'PackInputs')


class MaskFollower:
    """Sends an image and its mask through a test pipeline.

    Args:
        pipeline (Sequence[Callable]): The built transforms.

    Raises:
        UserError: One of them moves pixels in a way that a mask cannot follow.
    """

    def __init__(self, pipeline: Sequence[Callable]) -> None:
        self.steps = [(t, self._following(t, i)) for i, t in enumerate(pipeline)]

    @staticmethod
    def _following(transform: Callable, i: int) -> Callable | None:
        """Return the transform for masks; None where pixels stay."""
        name = type(transform).__name__
        if name in STILL:
            return None
        twin = copy.copy(transform)
        if name in ('Resize', 'ResizeEdge'):
            # Pillow's nearest pixel is that of the center; OpenCV's is not.
            twin.interpolation, twin.backend = 'nearest', 'pillow'
        elif name == 'CenterCrop':
            # What is padded is no background.
            twin.pad_cfg = dict(twin.pad_cfg, pad_val=dict(img=IGNORED))
        elif name == 'Pad':
            twin.pad_val = dict(img=IGNORED)
        else:
            raise UserError(
                f'test_dataloader.dataset.pipeline[{i}] is {name}, and a mask cannot '
                'follow it. Known: Resize, ResizeEdge, CenterCrop, Pad, '
                f'{", ".join(STILL)}. Fix: a test pipeline of these.'
            )
        return twin

    def __call__(self, name: str, sample: dict, mask: np.ndarray) -> tuple[dict, np.ndarray]:
        """Run the pipeline.

        Args:
            name (str): Names the image in messages.
            sample (dict): What the pipeline takes.
            mask (np.ndarray): uint8 ``[H, W]``, as large as the loaded image.

        Returns:
            tuple[dict, np.ndarray]: The packed sample, and the mask of its pixels.

        Raises:
            UserError: The mask has another size than the image.
        """
        for transform, twin in self.steps:
            self._check(name, sample, mask)
            sample = transform(sample)
            if twin is not None:
                mask = twin(dict(img=mask))['img']
        self._check(name, sample, mask)
        size = tuple(sample['inputs'].shape[-2:])
        if size != mask.shape:
            raise UserError(
                f'{name}: the pipeline packs {size[0]} x {size[1]} pixels, the mask has '
                f'{mask.shape[0]} x {mask.shape[1]}. Fix: give the mask of this very image.'
            )
        return sample, mask

    @staticmethod
    def _check(name: str, sample: dict, mask: np.ndarray) -> None:
        img = sample.get('img')
        if img is not None and img.shape[:2] != mask.shape:
            raise UserError(
                f'{name}: the image has {img.shape[0]} x {img.shape[1]} pixels, its mask '
                f'{mask.shape[0]} x {mask.shape[1]}. Fix: give the mask of this very image.'
            )


def batches(
    items: Sequence[Item],
    follower: MaskFollower,
    batch_size: int = 32,
    skip_empty: bool = False,
    collate: Callable = pseudo_collate,
) -> Iterator[tuple[list[str], dict, list[np.ndarray]]]:
    """Make batches that :func:`lm4ve.analysis.analyse` takes.

    Args:
        items (Sequence[Item]): The images with their masks.
        follower (MaskFollower): Sends them through the pipeline.
        batch_size (int): The number of images in a batch.
        skip_empty (bool): Pass over images whose mask has no foreground.
        collate (Callable): Makes a batch of a list of samples.

    Yields:
        tuple[list[str], dict, list[np.ndarray]]: Names, the batch, masks.

    Raises:
        UserError: A mask has no foreground, or images leave the pipeline in
            different sizes.
    """
    names, samples, masks = [], [], []
    for name, sample, mask in map(items.__getitem__, range(len(items))):
        if not (mask == 1).any():
            if skip_empty:
                continue
            raise UserError(
                f'{name}: its mask has no foreground (values found: '
                f'{np.unique(mask)[:5].tolist()}, 1 is foreground, {IGNORED} is ignored). Fix: '
                'mend or remove it, or pass over images without foreground with --skip-empty.'
            )
        sample, mask = follower(name, sample, mask)
        if masks and masks[0].shape != mask.shape:
            raise UserError(
                f'{name} leaves the pipeline with {mask.shape} pixels, {names[0]} with '
                f'{masks[0].shape}. Fix: --batch-size 1, or a test pipeline that ends in one size.'
            )
        names.append(name)
        samples.append(sample)
        masks.append(mask)
        if len(names) == batch_size:
            yield names, collate(samples), masks
            names, samples, masks = [], [], []
    if names:
        yield names, collate(samples), masks
