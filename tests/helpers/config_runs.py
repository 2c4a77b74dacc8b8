"""The checks that every config of every task has to pass: it trains, saves and resumes."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from safetensors.torch import load_file

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.record_text import KEY
from lm4ve.runner.command_line import build_runner
from tests.helpers.shrink import Shrinker


class WeightsOfFiles(Hook):
    """Checks, when training starts, that the weights that a config names are the model's.

    Args:
        files (Sequence[Path]): Each has tensors that the model must have, bit for bit;
            some are resized or left out.
    """

    priority = 'VERY_HIGH'

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def before_train(self, runner: Runner) -> None:
        in_model = {digest(tensor) for tensor in runner.model.state_dict().values()}
        for path in self.files:
            in_file = set()
            for tensor in read_tensors(path):
                # Gains of 1 and biases of 0 are everywhere.
                if tensor.dim() > 1 and tensor.std() > 0:
                    in_file.add(digest(tensor))
            assert in_file, path
            assert len(in_file & in_model) >= len(in_file) / 3, path


def digest(tensor: torch.Tensor) -> bytes:
    return tensor.detach().float().contiguous().numpy().tobytes()


def read_tensors(path: Path) -> list[torch.Tensor]:
    """Return the floating-point tensors of a weight file."""
    if path.suffix == '.safetensors':
        content = load_file(path)
    else:
        content = torch.load(path)
    for key in ('state_dict', 'model'):
        if key in content:
            content = content[key]
            break
    tensors = [value for value in content.values() if torch.is_tensor(value)]
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def train_and_resume(shrinker: Shrinker, name: str, work_dir: Path) -> Runner:
    """Train a shrunk config for one epoch, and for a second one after a resume.

    Returns:
        Runner: The resumed one, after its last validation.
    """
    runner = build_runner(shrinker.load(name, work_dir))
    runner.register_hook(WeightsOfFiles(shrinker.weights))
    has_block = any(isinstance(m, LLMBlock) for m in runner.model.modules())
    words = ('llama', 'minilm', 'smollm2', 'randinit', 'qwen', 'pangu')
    assert has_block == any(word in name for word in words)
    train(runner)
    assert f'val/{shrinker.metric}' in runner.message_hub.log_scalars

    state = torch.load(work_dir / 'epoch_1.pth', weights_only=True)['state_dict']
    saved = 0
    for key, value in state.items():
        if KEY not in key and value.is_floating_point():
            saved += value.numel()
    # The block's frozen tensors are no parameters; an encoder that does not train has
    # some.
    own = sum(value.numel() for value in runner.model.parameters())
    own += sum(value.numel() for value in runner.model.buffers())
    assert saved <= own

    cfg = shrinker.load(name, work_dir, epochs=2)
    cfg.resume = 'newest'
    resumed = build_runner(cfg)
    resumed.train()
    assert resumed.epoch == 2
    assert (work_dir / 'epoch_2.pth').is_file()
    return resumed


def metrics_of_saved(shrinker: Shrinker, name: str, work_dir: Path) -> dict:
    """Return what a test measures of a shrunk config's second checkpoint."""
    cfg = shrinker.load(name, work_dir)
    cfg.load_from = str(work_dir / 'epoch_2.pth')
    return build_runner(cfg).test()


def train(runner: Runner) -> None:
    """Train; everything that trains has a gradient and moves, and the block stays as it is."""
    model = runner.model
    frozen = {name: tensor.clone() for name, tensor in frozen_tensors(model).items()}
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    reached = set()
    for name, parameter in trained.items():
        parameter.register_post_accumulate_grad_hook(
            lambda _, name=name: reached.add(name)
        )
    runner.train()
    assert runner.iter > 0
    # DDP would stop at the second step if a parameter had no gradient.
    assert reached == set(before)
    moved = set()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all()
        if name in before and not torch.equal(before[name], parameter):
            moved.add(name)
    assert first_parts(moved) == first_parts(before)
    assert {name for name in before if name.endswith('mapper_in.weight')} <= moved
    torch.testing.assert_close(frozen_tensors(model), frozen, rtol=0, atol=0)


def first_parts(names: Iterable[str]) -> set[str]:
    """Return the parts of a model that names of parameters begin with."""
    return {name.partition('.')[0] for name in names}
