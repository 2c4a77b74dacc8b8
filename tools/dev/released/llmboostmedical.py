"""Run LLMBoostMedical's code and store what it computes, for tests/projects/llm4seg.

    git clone https://github.com/ZhixinLai/LLMBoostMedical FOLDER
    git -C FOLDER checkout f34c6fb84912589e7746aab1c13a5a7678b61f61
    pip install einops kornia medmnist timm==0.4.12
    python -m tools.dev.released.llmboostmedical FOLDER \
        tests/data/released/llmboostmedical.npz

The models are small; their forward passes, pipelines, losses, evaluation and rule of
early stopping are the released ones. ``Tensor.float`` gives float64 here, so that no
rounding hides a difference.
"""

import importlib
import os
import sys
import tempfile
import types
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import medmnist
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tools.dev.released.seeding import gradient_marks, seeded_weights

#: The small language model, in the words of the released code.
LLAMA = dict(dim=32, multiple_of=16, n_heads=4, norm_eps=1e-6, vocab_size=-1)
LLAMA.update(n_layers=32, first_layer=31)
VIT = dict(img_size=32, embed_dim=24, depth=2, num_heads=3)
VIVIT = dict(image_size=8, frames=4, image_patch_size=4, frame_patch_size=2, dim=24)
VIVIT.update(spatial_depth=2, temporal_depth=2, heads=2, dim_head=8, mlp_dim=24)
#: Our residual -> the number of the released ViT, and the mode of the released ViViT.
VIT_MODES = dict(none=0, inner=1, outer=2, both=3)
VIVIT_MODES = dict(none='llm', inner='llm_in', outer='llm_out', both='llm_hybrid')
VIVIT_MODES['skip'] = 'llm_out_nn'
CLASSES = 1000
LABELS = [3, 1]
#: Modules that the released code imports for logs and pictures -> what of them.
UNUSED = {
    'wandb': (),
    'pytorch_grad_cam': ('GradCAM',),
    'pytorch_grad_cam.utils': (),
    'pytorch_grad_cam.utils.model_targets': ('ClassifierOutputTarget',),
    'pytorch_grad_cam.utils.image': ('show_cam_on_image',),
}
#: Every how many pixels of an input are stored.
STRIDE = 8


@contextmanager
def released_modules(folder: Path) -> Iterator[None]:
    """Import from a folder of the released code, which is the working directory meanwhile."""
    for name, attributes in UNUSED.items():
        module = types.ModuleType(name)
        for attribute in attributes:
            setattr(module, attribute, None)
        sys.modules[name] = module
    before = os.getcwd()
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        for name in ('datasets', 'engine', 'main', 'models', 'utils'):
            for loaded in [*sys.modules]:
                if loaded == name or loaded.startswith(f'{name}.'):
                    del sys.modules[loaded]


def give_weights(model: nn.Module) -> nn.Module:
    """Give a model its seeded weights in float64; the norm of LLaMA keeps its ones."""
    state = model.state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items()}
    for name, values in seeded_weights(shapes).items():
        if name != 'llama.norm.weight':
            state[name] = torch.from_numpy(values)
    model.double().load_state_dict(state)
    return model.eval()


def random_input(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(2).standard_normal(shape))


def store_results(
    stored: dict, name: str, model: nn.Module, x: Tensor, loss_of: Callable
) -> None:
    """Store logits, loss, the marks of all gradients and the names and shapes of a model."""
    shapes = []
    for tensor_name, tensor in model.state_dict().items():
        shapes.append(' '.join([tensor_name, *map(str, tensor.shape)]))
    stored[f'{name}.shapes'] = np.array(shapes)
    logits = model(x)
    loss = loss_of(logits)
    loss.backward()
    gradients = {}
    for parameter_name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[parameter_name] = parameter.grad.numpy()
    marks = gradient_marks(gradients)
    stored[f'{name}.logits'] = logits.detach().numpy()
    stored[f'{name}.loss'] = loss.detach().numpy()
    stored[f'{name}.gradient_names'] = np.array(sorted(marks))
    stored[f'{name}.gradients'] = np.stack([marks[key] for key in sorted(marks)])


def run_vits(stored: dict) -> None:
    """Store the results of the ViT without a block and with each residual."""
    vit = importlib.import_module('models.vit')
    vit_llama = importlib.import_module('models.vit_llama')
    mixup = importlib.import_module('timm.data.mixup')
    loss = importlib.import_module('timm.loss').SoftTargetCrossEntropy()
    labels = torch.tensor(LABELS)
    mixing = mixup.Mixup(0.8, 0.0, label_smoothing=0.1, num_classes=CLASSES)
    np.random.seed(0)
    lam, _ = mixing._params_per_batch()
    stored['vit.lam'] = np.array(lam)
    np.random.seed(0)
    mixup.mixup_target = partial(mixup.mixup_target, device='cpu')
    x = random_input(2, 3, 32, 32)
    mixed, targets = mixing(x.clone(), labels)
    for name, number in dict(plain=None, **VIT_MODES).items():
        if number is None:
            model = vit.VisionTransformer(**VIT, num_classes=CLASSES)
        else:
            model = vit_llama.ViTLLaMA(
                **VIT, num_classes=CLASSES, llama_configs=LLAMA, llam_res=number
            )
            shrink_mappers(model, VIT['embed_dim'])
        give_weights(model)
        stored[f'vit.{name}.clean_logits'] = model(x).detach().numpy()[:, :8]
        store_results(
            stored, f'vit.{name}', model, mixed, partial(loss, target=targets)
        )
        stored[f'vit.{name}.logits'] = stored[f'vit.{name}.logits'][:, :8]


def shrink_mappers(model: nn.Module, width: int) -> None:
    """Replace the mappers, whose inner width of 4096 is written into the released code."""
    model.llama_dim_mapper1 = nn.Linear(width, LLAMA['dim'], bias=False)
    model.llama_dim_mapper2 = nn.Linear(LLAMA['dim'], width, bias=False)


def run_vivits(stored: dict, folder: Path) -> None:
    """Store the results of ViViT without a block and with each residual."""
    vivit = importlib.import_module('models.vivit')
    vivit_llama = importlib.import_module('models.vivit_llama')
    small_llama = vivit_llama.LLaMATransformer(LLAMA)
    vivit_llama.LLaMATransformer = lambda _: small_llama
    # The released class reads its layer from this place when it is built.
    place = folder / 'llama/pyllama_data/7B'
    place.mkdir(parents=True, exist_ok=True)
    layer = small_llama.layers[0].state_dict()
    state = {f'layers.31.{name}': tensor for name, tensor in layer.items()}
    torch.save(state, place / 'consolidated.00.pth')
    x = random_input(2, 3, 4, 8, 8)
    one_hot = F.one_hot(torch.tensor([2, 1]), 3).double()
    for name, mode in dict(plain=None, **VIVIT_MODES).items():
        if mode is None:
            model = vivit.Vivit(**VIVIT, num_classes=3)
        else:
            model = vivit_llama.VivitLLama(**VIVIT, num_classes=3, model_name=mode)
            shrink_mappers(model, VIVIT['dim'])
        give_weights(model)
        loss = partial(nn.CrossEntropyLoss(), target=one_hot)
        store_results(stored, f'vivit.{name}', model, x, loss)


def run_picture_pipeline(stored: dict, folder: Path) -> None:
    """Store a picture of MedMNIST as the test pipeline gives it to the network."""
    picture = np.random.default_rng(3).integers(0, 256, (28, 28, 3), np.uint8)
    with tempfile.TemporaryDirectory() as root:
        with released_modules(folder / 'datasets'):
            data_load = importlib.import_module('data_load')
            data_load.save_dataset([(picture, np.array([0]))], root, 'test')
        with released_modules(folder):
            datasets = importlib.import_module('datasets')
            args = Namespace(data_path=root, input_size=224)
            dataset, num_classes = datasets.build_testset(False, args)
            image, _ = dataset[0]
    stored['picture.input'] = image.numpy()[:, ::STRIDE, ::STRIDE]
    stored['picture.num_classes'] = np.array(num_classes)


def run_volume_pipeline(stored: dict) -> None:
    """Store a volume of MedMNIST as the training gives it to the network."""
    volume = np.random.default_rng(4).integers(0, 256, (1, 28, 28, 28), np.uint8)
    with tempfile.TemporaryDirectory() as root:
        labels = np.zeros((1, 1), np.uint8)
        np.savez(
            f'{root}/fracturemnist3d.npz', train_images=volume, train_labels=labels
        )
        dataset = medmnist.FractureMNIST3D(split='train', root=root)
        video, _ = dataset[0]
    # As in the loop of 3D_classification/main.py, whose script trains when imported.
    expanded = torch.from_numpy(video)[None].float().repeat(1, 3, 1, 1, 1)
    stored['volume.input'] = expanded.numpy()[0, :, ::STRIDE, ::STRIDE, ::STRIDE]


def run_evaluation(stored: dict) -> None:
    """Store what the evaluation counts of seeded logits, of five classes and of two."""
    engine = importlib.import_module('engine')
    generator = np.random.default_rng(5)
    logits = torch.from_numpy(generator.standard_normal((21, CLASSES)))
    logits[:, :5] += 3
    # Three batches, the last of which is small.
    for num_classes in (5, 2):
        labels = torch.arange(len(logits)) % num_classes
        loader = DataLoader([*zip(logits, labels, strict=True)], batch_size=9)
        found = engine.evaluate(loader, nn.Identity(), torch.device('cpu'))
        values = [found['loss'], found['acc1'], found['auc']]
        stored[f'evaluation.{num_classes}'] = np.array(values)


def run_early_stopping(stored: dict) -> None:
    """Store after which of seeded losses the training ends, with a patience of three."""
    main = importlib.import_module('main')
    ends = []
    for seed in range(20):
        losses = np.random.default_rng(seed).standard_normal(40).tolist()
        end = len(losses)
        for count in range(1, len(losses) + 1):
            if main.early_stopping(losses[:count], 3):
                end = count
                break
        ends.append(end)
    stored['early_stopping.ends'] = np.array(ends)


def run_schedule(stored: dict) -> None:
    """Store the rate of each epoch that follows an ImageNet checkpoint of 300 epochs."""
    main = importlib.import_module('main')
    args = main.get_args_parser().parse_args(['--epochs', '400'])
    args.lr = args.lr * args.batch_size / 512
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=args.lr)
    scheduler, _ = main.create_scheduler(args, optimizer)
    rates = []
    for epoch in range(300, 400):
        rates.append(optimizer.param_groups[0]['lr'])
        scheduler.step(epoch)
    stored['schedule.rates'] = np.array(rates)


def run_groups(stored: dict) -> None:
    """Store the names of the parameters that decay and that do not."""
    vit_llama = importlib.import_module('models.vit_llama')
    optimizer_utils = importlib.import_module('optimizer_utils')
    model = vit_llama.ViTLLaMA(**VIT, llama_configs=LLAMA, llam_res=1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    skipped = model.no_weight_decay()
    groups = optimizer_utils.add_weight_decay(
        model, 0.05, skipped, param_filter='llama.layers'
    )
    for group in groups:
        group_names = sorted(names[id(parameter)] for parameter in group['params'])
        stored[f'groups.{group["weight_decay"]}'] = np.array(group_names)


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='a checkout of the released code')
    parser.add_argument('out', type=Path, help='the file to write')
    args = parser.parse_args()
    torch.Tensor.float = torch.Tensor.double
    folder = args.folder.resolve()
    out = args.out.resolve()
    stored: dict[str, np.ndarray] = {}
    with released_modules(folder / '2D_classification'):
        run_vits(stored)
        run_evaluation(stored)
        run_early_stopping(stored)
        run_schedule(stored)
        run_groups(stored)
    run_picture_pipeline(stored, folder / '2D_classification')
    with released_modules(folder / '3D_classification'):
        run_vivits(stored, folder / '3D_classification')
        run_volume_pipeline(stored)
    np.savez_compressed(out, **stored)


if __name__ == '__main__':
    main()
