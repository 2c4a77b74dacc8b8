"""Images with masks of their foreground, sent through a config's own test pipeline.

What the model sees is cut and scaled; the mask has to be the same way. It follows the
pipeline's geometric transforms one by one, with the nearest pixel taken, and a
transform that it cannot follow is refused instead of being passed over.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.dataset import Compose, pseudo_collate
from PIL import Image

from lm4ve.errors import UserError
from lm4ve.iou.pseudo_masks import IGNORED

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
MASKS = ('.png', '.bmp', '.tif', '.tiff', '.gif')
#: Transforms that leave every pixel where it is, by class name.
STILL = ('LoadImageFromFile', 'Normalize', 'PackInputs')
#: Keys under which a data set's sample may carry its mask.
MASK_KEYS = ('gt_mask', 'gt_seg_map')
#: ImageNet-S: the id of pixels that do not count.
IMAGENET_S_IGNORED = 1000
#: ImageNet-S-50's classes; the id in a mask is the place in this list, from 1 (the
#: categories file of https://github.com/LUSSeg/ImageNet-S).
IMAGENET_S_50 = tuple(
    f'n{n:08d}'
    for n in (
        1443537,
        1491361,
        1531178,
        1644373,
        2104029,
        2119022,
        2123597,
        2133161,
        2165456,
        2281406,
        2325366,
        2342885,
        2396427,
        2483362,
        2504458,
        2510455,
        2690373,
        2747177,
        2783161,
        2814533,
        2859443,
        2917067,
        2992529,
        3014705,
        3047690,
        3095699,
        3197337,
        3201208,
        3445777,
        3452741,
        3584829,
        3630383,
        3775546,
        3791053,
        3874599,
        3891251,
        4026417,
        4335435,
        4380533,
        4404412,
        4447861,
        4507155,
        4522168,
        4557648,
        4562935,
        4612504,
        6794110,
        7749582,
        7831146,
        12998815,
    )
)

#: A name, what goes into the pipeline, and the mask (uint8 ``[H, W]``: 0, 1, IGNORED).
Item = tuple[str, dict, np.ndarray]


# ---------------------------------------------------------------------- geometry
class MaskFollower:
    """Sends an image and its mask through a test pipeline.

    Args:
        pipeline (Sequence[Callable]): The built transforms.

    Raises:
        UserError: One of them moves pixels in a way that a mask cannot follow.
    """

    def __init__(self, pipeline: Sequence[Callable]) -> None:
        self.steps = []
        for i, transform in enumerate(pipeline):
            self.steps.append((transform, self._following(transform, i)))

    @staticmethod
    def _following(transform: Callable, i: int) -> Callable | None:
        """The transform for masks; None where pixels stay."""
        name = type(transform).__name__
        if name in STILL:
            return None
        twin = copy.copy(transform)
        if name in ('Resize', 'ResizeEdge'):
            # Pillow's nearest pixel is that of the centre; OpenCV's is not.
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
            name (str): Of the image, for messages.
            sample (dict): What goes in.
            mask (np.ndarray): uint8 ``[H, W]``, of the image as it is loaded.

        Returns:
            tuple[dict, np.ndarray]: What the model's batch is made of, and the mask
            of its pixels.

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
                f'{name}: the pipeline packs {size[0]} x {size[1]} '
                f'pixels, the mask has {mask.shape[0]} x '
                f'{mask.shape[1]}.'
            )
        return sample, mask

    @staticmethod
    def _check(name: str, sample: dict, mask: np.ndarray) -> None:
        img = sample.get('img')
        if img is not None and img.shape[:2] != mask.shape:
            raise UserError(
                f'{name}: the image has {img.shape[0]} x {img.shape[1]} pixels, its '
                f'mask {mask.shape[0]} x {mask.shape[1]}. Fix: give the mask of '
                'this very image.'
            )


def batches(
    items: Sequence[Item],
    follower: MaskFollower,
    batch_size: int = 32,
    skip_empty: bool = False,
    collate: Callable = pseudo_collate,
) -> Iterator[tuple[list[str], dict, list[np.ndarray]]]:
    """Make batches for :func:`lm4ve.activations.analyse`.

    Args:
        items (Sequence[Item]): Images with masks.
        follower (MaskFollower): The pipeline.
        batch_size (int): Images in a batch.
        skip_empty (bool): Pass over images whose mask has no foreground.
        collate (Callable): Makes a batch of samples.

    Yields:
        tuple[list[str], dict, list[np.ndarray]]: Names, the batch, masks.

    Raises:
        UserError: A mask has no foreground, or images leave the pipeline in
            different sizes.
    """
    names, samples, masks = [], [], []
    for i in range(len(items)):
        name, sample, mask = items[i]
        if not (mask == 1).any():
            if skip_empty:
                continue
            raise UserError(
                f'{name}: its mask has no foreground (values found: '
                f'{np.unique(mask)[:5].tolist()}, 1 is foreground, {IGNORED} is '
                'ignored). Fix: mend or remove it, or pass over such images with '
                '--skip-empty.'
            )
        sample, mask = follower(name, sample, mask)
        if masks and masks[0].shape != mask.shape:
            raise UserError(
                f'{name} leaves the pipeline with {mask.shape} pixels, {names[0]} '
                f'with {masks[0].shape}. Fix: --batch-size 1, or a test pipeline '
                'that ends in one size.'
            )
        names.append(name)
        samples.append(sample)
        masks.append(mask)
        if len(names) == batch_size:
            yield names, collate(samples), masks
            names, samples, masks = [], [], []
    if names:
        yield names, collate(samples), masks


# -------------------------------------------------------------------------- data
class MaskFiles:
    """Pairs of an image's file and its mask's; what the layouts have in common.

    Args:
        pairs (Sequence[tuple[Path, Path]]): Image, mask.
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
                raise UserError(f"'{image}' is not an image that can be read.")
            sample.update(img=img, img_shape=img.shape[:2], ori_shape=img.shape[:2])
        return str(image), sample, self.foreground(mask)

    def foreground(self, path: Path) -> np.ndarray:
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
        classes = tuple(files[0].read_text().split()) if files else IMAGENET_S_50
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
                f"'{path}' has mode {pixels.mode}; ImageNet-S's masks are "
                'RGB with id = R + 256 G. Fix: --layout folder for '
                'other masks.'
            )
        rgb = np.asarray(pixels).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1]
        mask = (ids == self.ids[path.parent.name]).astype(np.uint8)
        mask[ids == IMAGENET_S_IGNORED] = IGNORED
        return mask


class MaskFolder(MaskFiles):
    """Any images and masks with the same names: ``ROOT/images``, ``ROOT/masks``.

    A mask's pixel is foreground where it is above 0: the index of a palette, the
    level of a grey image, the largest channel of a colour image (without alpha).

    Args:
        root (str | Path): Has ``images`` and ``masks``, with folders inside or not.
        ignored (int, optional): Palette index or grey level that does not count, for
            example 255 in Pascal VOC.
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
                f"'{path}' has mode {pixels.mode}; masks are palette, grey or RGB images."
            )
        mask = (values > 0).astype(np.uint8)
        if self.ignored is not None:
            mask[values == self.ignored] = IGNORED
        return mask


class SampleMasks:
    """A data set of MMEngine whose samples carry their mask.

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
                f"{type(dataset).__name__}'s samples have no mask (found: "
                f'{", ".join(found)}; expected {" or ".join(MASK_KEYS)}). Fix: give '
                '--data-root and --layout, or the config of a data set with masks, '
                'for example lm4ve.TexturedDigits.'
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
        UserError: The layout is unknown, or as of its class.
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
    except OSError as e:
        raise UserError(f"'{path}' is not an image that can be read: {e}.") from e
    return image
