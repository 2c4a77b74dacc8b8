"""Models and samples for looking at: a config, a checkpoint, and files or indices.

Any file of a task goes through the config's own test pipeline, changed only where
that pipeline begins with something else than a file. What is wrong with an input is
said before a model is built.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, FUNCTIONS, MODELS, Registry
from torch import nn

from lm4ve.activations.batches import safe_name, sample_name
from lm4ve.blocks.provenance import SOURCE_KEY
from lm4ve.engine import config as config_files
from lm4ve.engine.checkpoint_files import load_strictly, read_checkpoint, select_state
from lm4ve.engine.text import listing
from lm4ve.errors import CheckpointError, UserError

#: What stands for no checkpoint.
UNTRAINED = ('none', '-')
IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mkv', '.mov', '.webm', '.m4v', '.mpg', '.mpeg', '.gif')
CLOUDS = ('.ply', '.pcd', '.xyz', '.off', '.obj', '.stl', '.npy', '.txt')
SCENES = ('.csv', '.parquet')
_SUFFIXES = dict(image=IMAGES, video=VIDEOS, pointcloud=CLOUDS, motion=SCENES)
_WORDS = dict(
    image='an image',
    video='a video',
    pointcloud='a point cloud',
    motion='a traffic scene',
)


class Given(NamedTuple):
    """One sample: its name and what the pipeline made of it."""

    name: str
    data: dict


class Loaded(NamedTuple):
    """A model in evaluation mode, and the names of its classes if known."""

    model: nn.Module
    classes: Sequence[str] | None


def read_config(path: str | Path, options: dict | None = None) -> Config:
    """Read a config, and make its scope the default one.

    Raises:
        UserError: It does not exist, or has neither test nor validation data.
    """
    cfg = config_files.read_config(path, options)
    if _loader(cfg) is None:
        raise UserError(
            f"The config '{path}' has neither test_dataloader nor "
            'val_dataloader, whose pipeline inputs go through.'
        )
    return cfg


def _loader(cfg: Config) -> dict | None:
    return cfg.get('test_dataloader') or cfg.get('val_dataloader')


def _dataset(cfg: Config) -> dict:
    dataset = _loader(cfg).dataset
    while 'pipeline' not in dataset and 'dataset' in dataset:  # a wrapper
        dataset = dataset.dataset
    return dataset


def task_of(cfg: Config) -> str:
    """Name what a config's model takes: one of :data:`lm4ve.activations.KINDS`."""
    kind = _registered(MODELS, cfg.model.type)
    modules = [c.__module__ for c in getattr(kind, '__mro__', ())]
    for start, task in (
        ('lm4ve.tasks.motion', 'motion'),
        ('lm4ve.tasks.pointcloud', 'pointcloud'),
        ('mmaction', 'video'),
    ):
        if any(m.startswith(start) for m in modules):
            return task
    return 'image'


def _registered(registry: Registry, name: str | type) -> Any:
    """What a config's ``type`` names; `get` alone does not look into its scope."""
    if not isinstance(name, str):
        return name
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name)


# ------------------------------------------------------------------------- model
def load_model(cfg: Config, checkpoint: str, device: str | None = None) -> Loaded:
    """Build a config's model and load a checkpoint, without executing code of it.

    Args:
        cfg (Config): See :func:`read_config`.
        checkpoint (str): A file, or 'none' or '-': as training would begin, seed 0.
        device (str, optional): Default: a GPU if there is one.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, or of another model.
        UserError: There is no such device.
    """
    device = _device(device)
    torch.manual_seed(0)
    settings = cfg.model
    if cfg.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    content = None
    if checkpoint not in UNTRAINED:
        content = read_checkpoint(checkpoint)
    model = MODELS.build(settings)
    if content is None:
        _initialise(model)
    else:
        origin = f"'{checkpoint}'"
        state = select_state(content, origin=origin)
        load_strictly(model, state, origin, optional=(SOURCE_KEY,))
    return Loaded(model.to(device).eval(), _classes(cfg, content or {}))


def _device(name: str | None) -> torch.device:
    if name is None:
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:
        raise UserError(
            f"--device '{name}' cannot be used: "
            f'{str(e).splitlines()[0]}. Fix: cpu, or cuda on a machine '
            'that has one.'
        ) from e
    return device


def _initialise(model: nn.Module) -> None:
    try:
        model.init_weights()
    except FileNotFoundError as e:
        raise CheckpointError(
            f'Training would begin with a file that is not there: {e}. Fix: give '
            'a checkpoint, or take the file out with --cfg-options.'
        ) from e


def _classes(cfg: Config, checkpoint: dict) -> Sequence[str] | None:
    dataset = _dataset(cfg)
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    kind = _registered(DATASETS, dataset.type)
    return (
        (dataset.get('metainfo') or {}).get('classes')
        or meta.get('classes')
        or getattr(kind, 'METAINFO', {}).get('classes')
    )


def collate(cfg: Config, samples: Sequence[dict]) -> Any:
    """Make a batch as the config's test data loader does."""
    function = _loader(cfg).get('collate_fn')
    if function is None or function['type'] == 'default_collate':
        # Lists: pictures may differ in size.
        return pseudo_collate(list(samples))
    options = {k: v for k, v in function.items() if k != 'type'}
    return _registered(FUNCTIONS, function['type'])(list(samples), **options)


# ----------------------------------------------------------------------- samples
def samples_by_index(cfg: Config, indices: Sequence[int]) -> list[Given]:
    """Take samples of the config's test data set.

    Raises:
        UserError: There is no such sample.
    """
    if not indices:
        return []
    dataset = DATASETS.build(_loader(cfg).dataset)
    count = len(dataset)
    wrong = [i for i in indices if not 0 <= i < count]
    if wrong:
        raise UserError(
            f'--indices {" ".join(map(str, wrong))}: the test set has '
            f'{count} samples, numbers 0 to {count - 1}.'
        )
    return [
        Given(f'test_{sample_name(_meta(d), i)}', d)
        for i, d in ((i, dataset[i]) for i in indices)
    ]


def _meta(data: dict) -> Any:
    """What a pipeline tells of a sample besides its inputs."""
    sample = data.get('data_samples', data)
    return sample[0] if isinstance(sample, list) else sample


def samples_of_files(
    cfg: Config, files: Sequence[str], map_dir: str | None = None
) -> list[Given]:
    """Read files as the config's task needs them, by its test pipeline.

    Args:
        cfg (Config): See :func:`read_config`.
        files (Sequence[str]): Images; videos and folders of frames; clouds and
            meshes; Argoverse 1's CSV and Argoverse 2's parquet files.
        map_dir (str, optional): Argoverse 1's ``map_files``; default: the next
            folder of that name above the file.

    Raises:
        UserError: A file is missing, unreadable, or of another task.
    """
    task = task_of(cfg)
    paths = [Path(f) for f in files]
    for path in paths:
        _check_kind(path, task)
    pipeline = [dict(t) for t in _dataset(cfg).pipeline]
    read = dict(
        image=_image,
        video=_video,
        pointcloud=_cloud,
        motion=lambda *a: _scene(*a, map_dir),
    )[task]
    return [
        Given(name, read(cfg, path, pipeline))
        for name, path in zip(_names(paths), paths, strict=True)
    ]


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of the paths, with a number where two are the same."""
    stems = [safe_name(p.stem) for p in paths]
    return [s if stems.count(s) == 1 else f'{i}_{s}' for i, s in enumerate(stems)]


def _check_kind(path: Path, task: str) -> None:
    if not path.exists():
        raise UserError(
            f"'{path}' does not exist. Fix: correct the path, or take "
            'samples of the test set with --indices.'
        )
    if path.is_dir():
        if task != 'video':
            raise UserError(
                f"'{path}' is a folder; the config takes "
                f'{_WORDS[task]}: a file ending in '
                f'{", ".join(_SUFFIXES[task])}.'
            )
        return
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES[task]:
        other = [_WORDS[t] for t, s in _SUFFIXES.items() if suffix in s]
        raise UserError(
            f"'{path}' is {other[0] if other else 'of an unknown kind'}; the config "
            f'takes {_WORDS[task]}: a file ending in {", ".join(_SUFFIXES[task])}'
            f'{", or a folder of frames" if task == "video" else ""}.'
        )


def _image(cfg: Config, path: Path, pipeline: list[dict]) -> dict:
    from lm4ve.tasks.image.corruption import find_defect

    defect = find_defect(str(path), decode=True)
    if defect is not None:
        raise UserError(f"The image '{path}' {defect}. Fix: give another one.")
    results: dict[str, Any] = dict(img_path=str(path))
    if not any('LoadImage' in t['type'] for t in pipeline):
        # The data set gives arrays, in the order that its preprocessor expects.
        preprocessor = cfg.get('data_preprocessor') or cfg.model.data_preprocessor
        pixels = cv2.imread(str(path))
        if not preprocessor.get('to_rgb', False):
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        results.update(
            img=pixels, img_shape=pixels.shape[:2], ori_shape=pixels.shape[:2]
        )
        size = cfg.model.get('backbone', {}).get('img_size')
        if size and not any('Resize' in t['type'] for t in pipeline):
            size = (size, size) if isinstance(size, int) else tuple(size)[::-1]
            pipeline = [dict(type='Resize', scale=size), *pipeline]
    return Compose(pipeline)(results)


def _video(cfg: Config, path: Path, pipeline: list[dict]) -> dict:
    # One clip and one crop, as mmaction2's inferencer has it.
    pipeline = [t for t in pipeline if 'Init' not in t['type']]
    for t in pipeline:
        if t['type'] in ('ThreeCrop', 'TenCrop'):
            t['type'] = 'CenterCrop'
        if t['type'] == 'SampleFrames' and cfg.model.type.endswith('Recognizer3D'):
            t['num_clips'] = 1
    at = next(i for i, t in enumerate(pipeline) if 'Decode' in t['type'])
    results: dict[str, Any] = dict(label=-1, start_index=0, modality='RGB')
    if path.is_dir():
        frames = _frames(path)
        results.update(array=frames, total_frames=len(frames))
        pipeline[at] = dict(type='ArrayDecode')
    else:
        from lm4ve.tasks.video.corruption import find_defect

        defect = find_defect(str(path))
        if defect is not None:
            raise UserError(f"The video '{path}' {defect}. Fix: give another one.")
        results.update(filename=str(path))
        pipeline[at] = dict(type='DecordDecode')
        pipeline.insert(0, dict(type='DecordInit'))
    return Compose(pipeline)(results)


def _frames(folder: Path) -> np.ndarray:
    """A folder's images as one array, RGB; by number, then by name."""
    files = sorted(
        (p for p in folder.iterdir() if p.suffix.lower() in IMAGES),
        key=lambda p: (len(p.stem), p.stem),
    )
    frames = [cv2.imread(str(p)) for p in files]
    bad = [p.name for p, f in zip(files, frames, strict=True) if f is None]
    sizes = {f.shape for f in frames if f is not None}
    if bad or len(frames) < 2 or len(sizes) > 1:
        found = (
            f'{listing(bad, 3)} cannot be read'
            if bad
            else f'{len(frames)} image(s) of {len(sizes)} size(s)'
        )
        raise UserError(
            f"The folder of frames '{folder}': {found}; expected two or "
            f'more of one size, ending in {", ".join(IMAGES)}.'
        )
    return np.stack(frames)[..., ::-1]


def _cloud(cfg: Config, path: Path, pipeline: list[dict]) -> dict:
    from lm4ve.tasks.pointcloud.datasets.readers import drop_nonfinite, read_points

    for t in pipeline:
        # Data sets store farthest points first, or in random order; files do not.
        if t['type'].endswith('SamplePoints') and t.get('method') == 'first':
            t['method'] = 'fps'
    if _dataset(cfg).type.endswith('PrimitivesDataset'):
        # Its objects are of that size already.
        pipeline = [dict(type='lm4ve.NormalizeToUnitSphere'), *pipeline]
    points = drop_nonfinite(read_points(path), f"'{path}'")
    np.random.seed(0)
    return Compose(pipeline)(dict(points=points, path=str(path), sample_idx=0))


def _scene(cfg: Config, path: Path, pipeline: list[dict], map_dir: str | None) -> dict:
    from lm4ve.tasks.motion import Argoverse1Reader, Argoverse2Reader

    read: Callable
    if path.suffix.lower() == '.csv':
        read = Argoverse1Reader(path.parent, _map_files(path, map_dir)).read
    else:
        read = Argoverse2Reader(path.parent.parent).read
    scene = read(path)
    expected = cfg.model.decoder.get('future_steps', scene.future_steps)
    if scene.future_steps != expected:
        raise UserError(
            f"'{path}' has {scene.future_steps} steps to forecast, the config's "
            f'model {expected}. Fix: give files of the data set that it was trained '
            'on.'
        )
    return Compose(pipeline)(dict(scene=scene, sample_idx=0))


def _map_files(path: Path, map_dir: str | None) -> Path:
    if map_dir is not None:
        return Path(map_dir)
    for folder in path.resolve().parents:
        if (folder / 'map_files').is_dir():
            return folder / 'map_files'
    raise UserError(
        f"No folder map_files above '{path}'. Fix: --map-dir, with the "
        'folder of hd_maps.tar.gz.'
    )
