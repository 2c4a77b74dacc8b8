"""Images with masks of their foreground, from folders or from a data set of MMEngine.

Every source gives items of one form, which :mod:`lm4ve.analysis.iou.mask_pipeline` sends through
a test pipeline.
"""

from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.dataset import Compose
from PIL import Image

from lm4ve.analysis.iou.pseudo_masks import IGNORED
from lm4ve.errors import UserError
from lm4ve.files import decoded

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
MASKS = ('.png', '.bmp', '.tif', '.tiff', '.gif')
#: Keys under which a data set's sample may carry its mask.
MASK_KEYS = ('gt_mask', 'gt_seg_map')
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

#: A name, what goes into the pipeline, and the mask (uint8 ``[H, W]``: 0, 1, IGNORED).
Item = tuple[str, dict, np.ndarray]


# -------------------------------------------------------------------------- data
class MaskFiles:
    """Pairs of an image file and its mask's file, which every layout gives.

    Args:
        pairs (Sequence[tuple[Path, Path]]): The files of image and mask.
        load_file (bool): The pipeline reads the file itself.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], load_file: bool) -> None:
        self.pairs = list(pairs)
        self.load_file = load_file

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> Item:
        image, mask = self.pairs[i]
        sample = dict(img_path=str(image))
        if not self.load_file:
            img = mmcv.imread(str(image))
            if img is None:
                raise UserError(
                    f"'{image}' is not an image that can be read. Fix: mend or remove it."
                )
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
        root (str | Path): ``ImageNetS50``, or 300 or 919.
        split (str): 'validation', or 'train-semi'.
        load_file (bool): See :class:`MaskFiles`.

    Raises:
        UserError: The folders are not there or empty, an image has no mask, or a
            class has no known id.
    """

    def __init__(self, root: str | Path, split: str = 'validation', load_file: bool = True) -> None:
        self.root = Path(root)
        images, masks = self.root / split, self.root / f'{split}-segmentation'
        pairs = _pairs(
            images,
            masks,
            f'ImageNet-S has {split}/<wnid>/*.JPEG and {split}-segmentation/<wnid>/*.png',
        )
        self.ids = self._ids(sorted({p.parent.name for p, _ in pairs}))
        super().__init__(pairs, load_file)

    def _ids(self, found: list[str]) -> dict:
        files = sorted(self.root.glob('ImageNetS_categories_im*.txt'))
        classes = (
            tuple(decoded(files[0].read_bytes(), files[0]).split()) if files else IMAGENET_S_50
        )
        unknown = [c for c in found if c not in classes]
        if unknown:
            where = files[0] if files else "ImageNet-S-50's list"
            raise UserError(
                f"'{self.root}' has the class folder '{unknown[0]}', which is not in "
                f'{where}. Fix: put ImageNetS_categories_im300.txt or _im919.txt of '
                'github.com/LUSSeg/ImageNet-S into the folder for the larger sets; '
                'for other data use --layout folder.'
            )
        return {c: i + 1 for i, c in enumerate(classes)}

    def foreground(self, path: Path) -> np.ndarray:
        pixels = _open(path)
        if pixels.mode != 'RGB':
            raise UserError(
                f"'{path}' has mode {pixels.mode}; ImageNet-S's masks are RGB with id = R + 256 "
                'G. Fix: --layout folder for other masks.'
            )
        rgb = np.asarray(pixels).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1]
        mask = (ids == self.ids[path.parent.name]).astype(np.uint8)
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

    Raises:
        UserError: The folders are not there or empty, or an image has no mask.
    """

    def __init__(
        self, root: str | Path, ignored: int | None = None, load_file: bool = True
    ) -> None:
        root = Path(root)
        self.ignored = ignored
        super().__init__(
            _pairs(
                root / 'images', root / 'masks', 'A folder has images/NAME.jpg and masks/NAME.png'
            ),
            load_file,
        )

    def foreground(self, path: Path) -> np.ndarray:
        pixels = _open(path)
        if pixels.mode in ('RGB', 'RGBA', 'LA'):
            values = np.asarray(pixels)
            values = values[..., : 1 if pixels.mode == 'LA' else 3].max(-1)
        elif pixels.mode in ('P', 'L', '1', 'I') or pixels.mode.startswith('I;16'):
            values = np.asarray(pixels)
        else:
            raise UserError(
                f"'{path}' has mode {pixels.mode}; masks are palette, gray or RGB images. "
                'Fix: convert it.'
            )
        mask = (values > 0).astype(np.uint8)
        if self.ignored is not None:
            mask[values == self.ignored] = IGNORED
        return mask


class SampleMasks:
    """A data set of MMEngine, each of whose samples carries its mask.

    Args:
        dataset (BaseDataset): With ``gt_mask`` (or ``gt_seg_map``) in its samples, in
            the size of ``img``, above 0 = foreground.

    Raises:
        UserError: There is no such key, or there are no samples.
    """

    def __init__(self, dataset) -> None:
        self.dataset = dataset
        if not len(dataset):
            raise UserError(f'{type(dataset).__name__} has no samples.')
        found = dataset.get_data_info(0)
        self.key = next((k for k in MASK_KEYS if k in found), None)
        if self.key is None:
            raise UserError(
                f"{type(dataset).__name__}'s samples have no mask (found: {', '.join(found)}; "
                f'expected {" or ".join(MASK_KEYS)}). Fix: give --data-root and --layout, or the '
                'config of a data set with masks, for example lm4ve.TexturedDigits.'
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Item:
        sample = self.dataset.get_data_info(i)
        mask = (np.asarray(sample[self.key]) > 0).astype(np.uint8)
        return str(sample.get('img_path', f'sample {i}')), sample, mask


LAYOUTS = {'imagenet-s': ImageNetS, 'folder': MaskFolder}


def open_masks(root: str | Path, layout: str, pipeline: Compose, **kwargs) -> MaskFiles:
    """Open a folder in one of :data:`LAYOUTS` for a pipeline.

    Raises:
        UserError: The layout is unknown, or its class refuses the folder.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout='{layout}' must be one of {', '.join(LAYOUTS)}.")
    reads = any(type(t).__name__ == 'LoadImageFromFile' for t in pipeline.transforms)
    return LAYOUTS[layout](root, load_file=reads, **kwargs)


def _pairs(images: Path, masks: Path, expected: str) -> list[tuple[Path, Path]]:
    """Pair files whose paths below the two folders differ in the suffix only."""
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(
                f"'{folder}' is not there. {expected}. Fix: set "
                '--data-root to the folder that has both.'
            )
    pairs = []
    for path in sorted(images.rglob('*')):
        if path.suffix.lower() not in IMAGES:
            continue
        stem = masks / path.relative_to(images)
        found = [
            p
            for s in MASKS
            for p in (stem.with_suffix(s), stem.with_suffix(s.upper()))
            if p.is_file()
        ]
        if not found:
            raise UserError(
                f"'{path}' has no mask: '{stem.with_suffix('.png')}' is "
                'not there. Fix: add it or remove the image.'
            )
        pairs.append((path, found[0]))
    if not pairs:
        raise UserError(f"'{images}' has no images ({', '.join(IMAGES)}). {expected}.")
    return pairs


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except Exception as e:  # Pillow's readers raise whatever comes up, with a file's bytes
        reason = getattr(e, 'strerror', None) or type(e).__name__
        raise UserError(
            f"'{path}' is not an image that can be read ({reason}). Fix: mend it."
        ) from e
    return image
