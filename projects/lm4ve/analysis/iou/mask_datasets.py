"""Images with masks of their foreground, sent through a config's own test pipeline.

Images and masks are files in folders, or samples of a data set of MMEngine. The pipeline cuts
and scales what the model sees, and the mask follows its geometric transforms one by one and
takes the nearest pixel.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.dataset import Compose, pseudo_collate
from PIL import Image

from lm4ve.analysis.iou.pseudo_masks import IGNORED
from lm4ve.errors import UserError, check

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
MASKS = ('.png', '.bmp', '.tif', '.tiff', '.gif')
#: Keys under which a data set's sample may carry its mask.
MASK_KEYS = ('gt_mask', 'gt_seg_map')
#: Transforms that leave every pixel where it is, by class name.
STILL = ('LoadImageFromFile', 'Normalize', 'PackInputs')
#: ImageNet-S: the id of pixels that do not count.
IMAGENET_S_IGNORED = 1000
#: ImageNet-S-50's classes; the id in a mask is the place in this list, from 1 (the
#: categories file of https://github.com/LUSSeg/ImageNet-S).
IMAGENET_S_50 = tuple(
    f'n{number}'
    for number in """
    01443537 01491361 01531178 01644373 02104029 02119022 02123597 02133161 02165456
    02281406 02325366 02342885 02396427 02483362 02504458 02510455 02690373 02747177
    02783161 02814533 02859443 02917067 02992529 03014705 03047690 03095699 03197337
    03201208 03445777 03452741 03584829 03630383 03775546 03791053 03874599 03891251
    04026417 04335435 04380533 04404412 04447861 04507155 04522168 04557648 04562935
    04612504 06794110 07749582 07831146 12998815
    """.split()
)

#: A name, the pipeline's input, and the mask (uint8 ``[H, W]``: 0, 1, IGNORED).
Item = tuple[str, dict, np.ndarray]


# -------------------------------------------------------------------------- data
class MaskFiles:
    """Pairs of an image file and its mask's file.

    Args:
        images, masks (Path): Folders, whose files have equal paths but for the suffix.
        load_file (bool): The pipeline reads the file itself.

    Raises:
        UserError: There are no images, or one has no mask.
    """

    def __init__(self, images: Path, masks: Path, load_file: bool = True) -> None:
        self.load_file = load_file
        self.pairs = []
        for path in sorted(p for p in images.rglob('*') if p.suffix.lower() in IMAGES):
            stem = masks / path.relative_to(images)
            suffixes = [s for m in MASKS for s in (m, m.upper())]
            found = [p for p in map(stem.with_suffix, suffixes) if p.is_file()]
            if not found:
                raise UserError(f"'{path}' has no mask '{stem.with_suffix('.png')}'.")
            self.pairs.append((path, found[0]))
        if not self.pairs:
            raise UserError(f"'{images}' has no images ({', '.join(IMAGES)}).")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Item:
        image, mask = self.pairs[i]
        sample = dict(img_path=str(image))
        if not self.load_file:
            img = mmcv.imread(str(image))
            sample.update(img=img, img_shape=img.shape[:2], ori_shape=img.shape[:2])
        return str(image), sample, self.foreground(mask)

    def foreground(self, path: Path) -> np.ndarray:
        """Read a mask, uint8 ``[H, W]``: 0, 1 or :data:`IGNORED`."""
        raise NotImplementedError


class ImageNetS(MaskFiles):
    """ImageNet-S (arXiv 2106.03149): ``validation`` beside its segmentation.

    ``ROOT/validation/<wnid>/*.JPEG`` and ``ROOT/validation-segmentation/<wnid>/
    *.png``, RGB with id = R + 256 G; foreground is the folder's own class, id 1000
    is ignored, anything else background.

    Args:
        root (str | Path): ``ImageNetS50``, or 300 or 919 with their categories file
            (``ImageNetS_categories_im300.txt``).
        split (str): 'validation', or 'train-semi'.
        load_file (bool): See :class:`MaskFiles`.
    """

    def __init__(self, root: str | Path, split: str = 'validation', load_file: bool = True) -> None:
        root = Path(root)
        super().__init__(root / split, root / f'{split}-segmentation', load_file)
        lists = sorted(root.glob('ImageNetS_categories_im*.txt'))
        self.classes = lists[0].read_text().split() if lists else IMAGENET_S_50
        for name in {mask.parent.name for _, mask in self.pairs} - {*self.classes}:
            raise UserError(
                f"'{root}' has the class '{name}', which is not in its list of classes. "
                'ImageNetS_categories_im300.txt or _im919.txt belongs into that folder.'
            )

    def foreground(self, path: Path) -> np.ndarray:
        pixels = _open(path)
        check(f"the mode of ImageNet-S's mask '{path}'", pixels.mode, choices=['RGB'])
        rgb = np.asarray(pixels).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1]
        mask = (ids == self.classes.index(path.parent.name) + 1).astype(np.uint8)
        mask[ids == IMAGENET_S_IGNORED] = IGNORED
        return mask


class MaskFolder(MaskFiles):
    """Any images and masks with the same names: ``ROOT/images``, ``ROOT/masks``.

    A mask's pixel is foreground where it is above 0: the index of a palette, the
    level of a gray image, the largest channel of a color image (without alpha).

    Args:
        root (str | Path): Has ``images`` and ``masks``, with folders inside or not.
        ignored (int, optional): The palette index or gray level that does not count,
            for example 255 in Pascal VOC.
        load_file (bool): See :class:`MaskFiles`.
    """

    def __init__(
        self, root: str | Path, ignored: int | None = None, load_file: bool = True
    ) -> None:
        super().__init__(Path(root) / 'images', Path(root) / 'masks', load_file)
        self.ignored = ignored

    def foreground(self, path: Path) -> np.ndarray:
        pixels = _open(path)
        known = ('RGB', 'RGBA', 'LA', 'P', 'L', '1', 'I', 'I;16', 'I;16B')
        check(f"the mode of the mask '{path}'", pixels.mode, choices=known)
        values = np.asarray(pixels)
        if values.ndim == 3:
            values = values[..., : 1 if pixels.mode == 'LA' else 3].max(-1)
        mask = (values > 0).astype(np.uint8)
        if self.ignored is not None:
            mask[values == self.ignored] = IGNORED
        return mask


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except Exception as e:  # Pillow's readers raise anything, with a file's bytes
        raise UserError(f"'{path}' is not an image that can be read ({type(e).__name__}).") from e
    return image


class SampleMasks:
    """A data set of MMEngine, each of whose samples carries its mask.

    Args:
        dataset (BaseDataset): With ``gt_mask`` (or ``gt_seg_map``) in its samples, in
            the size of ``img``, above 0 = foreground.

    Raises:
        UserError: There is no such key.
    """

    def __init__(self, dataset) -> None:
        self.dataset = dataset
        self.key = next((k for k in MASK_KEYS if k in dataset.get_data_info(0)), None)
        if self.key is None:
            raise UserError(
                f"{type(dataset).__name__}'s samples have no mask ({', '.join(MASK_KEYS)}). Give "
                '--data-root and --layout, or the config of a data set with masks.'
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Item:
        sample = self.dataset.get_data_info(i)
        mask = (np.asarray(sample[self.key]) > 0).astype(np.uint8)
        return str(sample.get('img_path', f'sample {i}')), sample, mask


LAYOUTS = {'imagenet-s': ImageNetS, 'folder': MaskFolder}


def open_masks(root: str | Path, layout: str, pipeline: Compose, **kwargs) -> MaskFiles:
    """Open a folder in one of :data:`LAYOUTS` for a pipeline."""
    reads = any(type(t).__name__ == 'LoadImageFromFile' for t in pipeline.transforms)
    return LAYOUTS[layout](root, load_file=reads, **kwargs)


# -------------------------------------------------------------------------- pipeline
class MaskFollower:
    """Sends an image and its mask through a test pipeline.

    Args:
        pipeline (Sequence[Callable]): The built transforms.

    Raises:
        UserError: One of them moves pixels in a way that a mask cannot follow.
    """

    def __init__(self, pipeline: Sequence[Callable]) -> None:
        self.steps = [(t, self._for_masks(t, i)) for i, t in enumerate(pipeline)]

    @staticmethod
    def _for_masks(transform: Callable, i: int) -> Callable | None:
        """Return the transform for masks; None where pixels stay."""
        name = type(transform).__name__
        known = ('Resize', 'ResizeEdge', 'CenterCrop', 'Pad', *STILL)
        check(f'test_dataloader.dataset.pipeline[{i}].type', name, choices=known)
        if name in STILL:
            return None
        twin = copy.copy(transform)
        # Padding is no background.
        if name == 'CenterCrop':
            twin.pad_cfg = dict(twin.pad_cfg, pad_val=dict(img=IGNORED))
        elif name == 'Pad':
            twin.pad_val = dict(img=IGNORED)
        else:
            # Pillow's nearest pixel is that of the center; OpenCV's is not.
            twin.interpolation, twin.backend = 'nearest', 'pillow'
        return twin

    def __call__(self, name: str, sample: dict, mask: np.ndarray) -> tuple[dict, np.ndarray]:
        """Run the pipeline.

        Args:
            name (str): Names the image in messages.
            sample (dict): The pipeline's input.
            mask (np.ndarray): uint8 ``[H, W]``, as large as the loaded image.

        Returns:
            tuple[dict, np.ndarray]: The packed sample, and the mask of its pixels.

        Raises:
            UserError: The mask has another size than the image.
        """
        for transform, twin in self.steps:
            if 'img' in sample:
                _check_size(name, mask, sample['img'].shape[:2])
            sample = transform(sample)
            if twin is not None:
                mask = twin(dict(img=mask))['img']
        _check_size(name, mask, sample['inputs'].shape[-2:])
        return sample, mask


def _check_size(name: str, mask: np.ndarray, size: Sequence[int]) -> None:
    if mask.shape != tuple(size):
        raise UserError(f'{name}: the image has {tuple(size)} pixels, its mask {mask.shape}.')


def batches(
    items: Sequence[Item],
    follower: MaskFollower,
    batch_size: int = 32,
    skip_empty: bool = False,
    collate: Callable = pseudo_collate,
) -> Iterator[tuple[list[str], dict, list[np.ndarray]]]:
    """Make batches for :func:`lm4ve.analysis.analyse`.

    Args:
        items (Sequence[Item]): The images with their masks.
        follower (MaskFollower): Sends them through the pipeline.
        batch_size (int): The number of images in a batch.
        skip_empty (bool): Pass over images whose mask has no foreground.
        collate (Callable): Makes a batch of a list of samples.

    Yields:
        tuple[list[str], dict, list[np.ndarray]]: Names, the batch, masks.

    Raises:
        UserError: A mask has no foreground.
    """
    batch: list[tuple[str, dict, np.ndarray]] = []
    for i in range(len(items)):
        name, sample, mask = items[i]
        if (mask == 1).any():
            batch.append((name, *follower(name, sample, mask)))
        elif not skip_empty:
            raise UserError(f'{name}: its mask has no foreground. --skip-empty passes over it.')
        if batch and (len(batch) == batch_size or i == len(items) - 1):
            names, samples, masks = map(list, zip(*batch, strict=True))
            yield names, collate(samples), masks
            batch = []
