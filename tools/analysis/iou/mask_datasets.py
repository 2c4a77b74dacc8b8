"""Images with masks of their foreground, sent through a config's own test pipeline.

Images and masks are files in folders, or samples of a data set of MMEngine. The
pipeline cuts and scales what the model sees, and the mask follows its geometric
transforms one by one and takes the nearest pixel.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, pseudo_collate
from PIL import Image

from lm4ve.data.folder_listing import list_files, warn_left_out
from lm4ve.data.image_files import read_pixels
from lm4ve.data.suffixes import has_image_suffix
from lm4ve.errors import UserError, check

from .pseudo_masks import IGNORED

#: The endings of masks: of formats that keep each value.
MASKS = ('.png', '.bmp', '.tif', '.tiff', '.gif')
#: Keys under which a data set's sample may carry its mask.
MASK_KEYS = ('gt_mask', 'gt_seg_map')
#: Transforms that leave every pixel where it is, by class name.
STILL = ('LoadImageFromFile', 'Normalize', 'PackInputs')
#: ImageNet-S-50's classes; the id in a mask is the place in this list, from 1 (the
#: categories file of https://github.com/LUSSeg/ImageNet-S).
IMAGENET_S_50 = [
    f'n{number}'
    for number in """
    01443537 01491361 01531178 01644373 02104029 02119022 02123597 02133161 02165456 02281406
    02325366 02342885 02396427 02483362 02504458 02510455 02690373 02747177 02783161 02814533
    02859443 02917067 02992529 03014705 03047690 03095699 03197337 03201208 03445777 03452741
    03584829 03630383 03775546 03791053 03874599 03891251 04026417 04335435 04380533 04404412
    04447861 04507155 04522168 04557648 04562935 04612504 06794110 07749582 07831146 12998815
""".split()
]

#: A name, the pipeline's input, and the mask (uint8 ``[H, W]``: 0, 1, IGNORED).
Item = tuple[str, dict[str, Any], np.ndarray]
#: A function for each item of a data set, which reads it.
Items = list[Callable[[], Item]]


# -------------------------------------------------------------------------- data
def imagenet_s(root: str | Path, split: str = 'validation') -> Items:
    """List the images of ImageNet-S (arXiv 2106.03149) with their masks.

    They are ``ROOT/validation/<wnid>/*.JPEG`` and
    ``ROOT/validation-segmentation/<wnid>/ *.png``, RGB with id = R + 256 G; foreground
    is the folder's own class, id 1000 is ignored, anything else background.

    Args:
        root (str | Path): ``ImageNetS50``, or 300 or 919 with their categories file
            (``ImageNetS_categories_im300.txt``).
        split (str): 'validation', or 'train-semi'.
    """
    root = Path(root)
    classes = IMAGENET_S_50
    lists = sorted(root.glob('ImageNetS_categories_im*.txt'))
    if lists:
        classes = lists[0].read_text().split()

    def foreground(path: Path) -> np.ndarray:
        """Read a mask: foreground is the class that its folder is named for."""
        red, green, _ = np.asarray(Image.open(path)).astype(int).transpose(2, 0, 1)
        ids = red + 256 * green
        mask = (ids == classes.index(path.parent.name) + 1).astype(np.uint8)
        mask[ids == 1000] = IGNORED
        return mask

    return _files(root / split, root / f'{split}-segmentation', foreground)


def folder(root: str | Path, ignored: int | None = None) -> Items:
    """List images and masks with the same names: ``ROOT/images``, ``ROOT/masks``.

    A mask's pixel is foreground where it is above 0: the index of a palette, the
    level of a gray image, the largest channel of a color image (without alpha).

    Args:
        root (str | Path): Has ``images`` and ``masks``, with folders inside or not.
        ignored (int, optional): The palette index or gray level that does not count,
            for example 255 in Pascal VOC.
    """

    def foreground(path: Path) -> np.ndarray:
        """Read a mask: foreground is whatever is above 0."""
        image = Image.open(path)
        values = np.asarray(image)
        if image.mode == 'LA':
            values = values[..., 0]
        elif values.ndim == 3:
            values = values[..., :3].max(-1)
        mask = (values > 0).astype(np.uint8)
        if ignored is not None:
            mask[values == ignored] = IGNORED
        return mask

    return _files(Path(root) / 'images', Path(root) / 'masks', foreground)


def _files(
    images: Path, masks: Path, foreground: Callable[[Path], np.ndarray]
) -> Items:
    """List the images of a folder with their masks; each is read when it is needed.

    A mask has its image's path below the other folder, but for the suffix. A warning
    names the files that are no images.

    Args:
        images, masks (Path): The two folders, with the same folders inside.
        foreground (Callable): Reads a mask's file, to uint8 ``[H, W]``.

    Returns:
        list[Callable]: Functions that read an image and its mask, in the order of the
        images' paths.

    Raises:
        UserError: There is no image, or one has no mask.
    """
    items: Items = []
    listed = list_files(images, has_image_suffix)
    warn_left_out(listed, images, 'images')
    for name in listed.files:
        image = images / name
        mask = _find_mask(masks / image.relative_to(images), image)
        items.append(partial(_read_files, image, mask, foreground))
    check(f"the number of images in '{images}'", len(items), least=1)
    return items


def _read_files(
    image: Path, mask: Path, foreground: Callable[[Path], np.ndarray]
) -> Item:
    """Read an image and its mask.

    The sample holds the file's name and its pixels, so that pipelines that load images
    and pipelines that do not can both begin with it.

    Args:
        image, mask (Path): The two files.
        foreground (Callable): Reads a mask's file, to uint8 ``[H, W]``.
    """
    img = read_pixels(image)
    size = img.shape[:2]
    sample = dict(img_path=str(image), img=img, img_shape=size, ori_shape=size)
    return str(image), sample, foreground(mask)


def _find_mask(path: Path, image: Path) -> Path:
    """Return the file of an image's mask, in any format of :data:`MASKS`.

    Args:
        path (Path): The mask's path, but for its suffix, which is replaced.
        image (Path): The image, for the error.

    Raises:
        UserError: There is no such file.
    """
    for suffix in MASKS:
        for spelling in (suffix, suffix.upper()):
            mask = path.with_suffix(spelling)
            if mask.is_file():
                return mask
    raise UserError(f"'{image}' has no mask '{path.with_suffix('.png')}'.")


def samples(dataset: BaseDataset) -> Items:
    """List the samples of a data set, each of which carries its mask.

    Args:
        dataset (BaseDataset): With ``gt_mask`` (or ``gt_seg_map``) in its samples, in
            the size of ``img``, above 0 = foreground.

    Raises:
        UserError: There is no such key.
    """
    first = dataset.get_data_info(0)
    keys = [key for key in MASK_KEYS if key in first]
    if not keys:
        raise UserError(
            f"{type(dataset).__name__}'s samples have no mask. Give --data-root."
        )
    key = keys[0]

    def read(i: int) -> Item:
        """Return the name of sample ``i``, the sample, and its mask."""
        sample = dataset.get_data_info(i)
        mask = (np.asarray(sample[key]) > 0).astype(np.uint8)
        return str(sample.get('img_path', f'sample {i}')), sample, mask

    return [partial(read, i) for i in range(len(dataset))]


# -------------------------------------------------------------------------- pipeline
def follow(
    pipeline: Sequence[Callable], name: str, sample: dict, mask: np.ndarray
) -> tuple[dict, np.ndarray]:
    """Send an image and its mask through a test pipeline.

    Args:
        pipeline (Sequence[Callable]): The built transforms.
        name (str): Names the image in messages.
        sample (dict): The pipeline's input.
        mask (np.ndarray): uint8 ``[H, W]``, as large as the loaded image.

    Returns:
        tuple[dict, np.ndarray]: The packed sample, and the mask of its pixels.

    Raises:
        UserError: The mask has another size than the image, or a transform moves pixels
            in a way that a mask cannot follow.
    """

    def check_size(size: Sequence[int]) -> None:
        """Refuse an image whose height and width are not those of the mask."""
        if mask.shape != tuple(size):
            raise UserError(
                f'{name}: the image has {tuple(size)} pixels, its mask {mask.shape}.'
            )

    for transform in pipeline:
        if 'img' in sample:
            check_size(sample['img'].shape[:2])
        sample = transform(sample)
        mask = _moved(transform, mask)
    check_size(sample['inputs'].shape[-2:])
    return sample, mask


def _moved(transform: Any, mask: np.ndarray) -> np.ndarray:
    """Apply a transform's change of geometry to the mask of its image.

    Pixels that are added as padding are :data:`IGNORED`, not background.

    Args:
        transform (BaseTransform): A transform of the pipeline; it is not changed.
        mask (np.ndarray): uint8 ``[H, W]``.

    Raises:
        UserError: The type of the transform is unknown, so that it may move pixels in a
            way that a mask cannot follow.
    """
    name = type(transform).__name__
    known = ('Resize', 'ResizeEdge', 'CenterCrop', 'Pad', *STILL)
    check(
        'the type of a transform in test_dataloader.dataset.pipeline',
        name,
        choices=known,
    )
    if name in STILL:
        return mask
    # A copy of the transform, with settings for masks.
    twin = copy.copy(transform)
    if name == 'CenterCrop':
        twin.pad_cfg = dict(twin.pad_cfg, pad_val=dict(img=IGNORED))
    elif name == 'Pad':
        twin.pad_val = dict(img=IGNORED)
    else:
        # Pillow takes the pixel nearest to the center, and OpenCV does not.
        twin.interpolation = 'nearest'
        twin.backend = 'pillow'
    return twin(dict(img=mask))['img']


def batches(
    items: Items,
    pipeline: Sequence[Callable],
    batch_size: int = 32,
    skip_empty: bool = False,
    collate: Callable = pseudo_collate,
) -> Iterator[tuple[list[str], dict, list[np.ndarray]]]:
    """Read images, send them through a pipeline, and yield them in batches.

    All batches are full but for the last one.

    Args:
        items (Items): The images with their masks.
        pipeline (Sequence[Callable]): The built transforms.
        batch_size (int): The number of images in a batch.
        skip_empty (bool): Pass over images whose mask has no foreground.
        collate (Callable): Makes a batch of a list of samples.

    Yields:
        tuple[list[str], dict, list[np.ndarray]]: The images' names; the batch, as
        :func:`lm4ve.analysis.analyse` takes it; and the masks of its pixels, uint8
        ``[H, W]`` each.

    Raises:
        UserError: A mask has no foreground, and ``skip_empty`` is False.
    """
    names: list[str] = []
    packed: list[dict] = []
    masks: list[np.ndarray] = []
    for read in items:
        name, sample, mask = read()
        has_foreground = (mask == 1).any()
        if not has_foreground and not skip_empty:
            raise UserError(
                f'{name}: its mask has no foreground. --skip-empty passes over it.'
            )
        if not has_foreground:
            continue
        packed_sample, moved_mask = follow(pipeline, name, sample, mask)
        names.append(name)
        packed.append(packed_sample)
        masks.append(moved_mask)
        if len(names) == batch_size:
            yield names, collate(packed), masks
            names = []
            packed = []
            masks = []
    if names:
        yield names, collate(packed), masks
