"""The checks that every config of every task has to pass: it trains, saves and resumes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from safetensors.torch import load_file

from lm4ve.blocks import LLMBlock, frozen_tensors
from lm4ve.blocks.provenance import SOURCE_KEY
from lm4ve.runner.command_line import build_runner
from lm4ve.runner.resume import resume_newest
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
        has = {digest(v) for v in runner.model.state_dict().values()}
        for path in self.files:
            # Gains of 1 and biases of 0 are everywhere.
            given = {
                digest(v) for v in read_tensors(path) if v.dim() > 1 and v.std() > 0
            }
            assert given, path
            assert len(given & has) >= len(given) / 3, path


def digest(tensor: torch.Tensor) -> bytes:
    return tensor.detach().float().contiguous().numpy().tobytes()


def read_tensors(path: Path) -> list[torch.Tensor]:
    """Return the floating-point tensors of a weight file."""
    content = load_file(path) if path.suffix == '.safetensors' else torch.load(path)
    content = content.get('state_dict', content.get('model', content))
    return [v for v in content.values() if torch.is_tensor(v) and v.is_floating_point()]


def train_and_resume(shrinker: Shrinker, name: str, work_dir: Path) -> Runner:
    """Train a shrunk config for one epoch, and for a second one after a resume.

    Returns:
        Runner: The resumed one, after its last validation.
    """
    runner = build_runner(shrinker.load(name, work_dir))
    runner.register_hook(WeightsOfFiles(shrinker.weights))
    has_block = any(isinstance(m, LLMBlock) for m in runner.model.modules())
    words = ('llama', 'minilm', 'smollm2', 'randinit', 'qwen')
    assert has_block == any(word in name for word in words)
    train(runner)
    assert f'val/{shrinker.metric}' in runner.message_hub.log_scalars

    state = torch.load(work_dir / 'epoch_1.pth', weights_only=True)['state_dict']
    saved = [
        v for k, v in state.items() if SOURCE_KEY not in k and v.is_floating_point()
    ]
    # The block's frozen tensors are no parameters; an encoder that does not train has
    # some.
    own = sum(v.numel() for v in (*runner.model.parameters(), *runner.model.buffers()))
    assert sum(v.numel() for v in saved) <= own

    cfg = shrinker.load(name, work_dir, epochs=2)
    resume_newest(cfg, needed=True)
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
    frozen = {k: v.clone() for k, v in frozen_tensors(model).items()}
    before = {k: v.clone() for k, v in model.named_parameters() if v.requires_grad}
    reached = set()
    for key, value in model.named_parameters():
        if value.requires_grad:
            value.register_post_accumulate_grad_hook(
                lambda _, key=key: reached.add(key)
            )
    runner.train()
    assert runner.iter > 0
    # DDP would stop at the second step if a parameter had no gradient.
    assert reached == set(before)
    after = dict(model.named_parameters())
    assert all(torch.isfinite(v).all() for v in after.values())
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert {k.partition('.')[0] for k in moved} == {k.partition('.')[0] for k in before}
    assert {k for k in before if k.endswith('mapper_in.weight')} <= moved
    torch.testing.assert_close(frozen_tensors(model), frozen, rtol=0, atol=0)
