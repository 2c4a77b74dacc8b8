"""Each extra is enough for its task: every package that it does not bring is hidden.

For each task this imports all modules, looks up all registered names, and trains the
embedded demo at a tiny size by the command that users type. A requirement that is
missing in ``requirements/<extra>.txt`` fails here, although the package is installed.
"""

import json
from pathlib import Path

import pytest

from lm4ve.tasks import TASKS, all_tasks, get_task
from tests.helpers.code_blocks import blocks_of
from tests.helpers.extras import needed_by, run_alone
from tests.helpers.families import write_huggingface
from tests.helpers.grids.toy import write_grid
from tests.helpers.image.images import fill
from tests.helpers.tasks import FOLDERS, ROOT

#: A block of the core's own, since the embedded language model is another extra.
BLOCK = """dict(
    _delete_=True, type='LLMBlock', pretrained=False,
    arch=dict(model_type='llama', hidden_size=32, intermediate_size=48,
              num_attention_heads=4, num_hidden_layers=1, vocab_size=8))"""

CLIPS = "data_root='clips', clips=dict(train=8, val=8, test=8)"
#: Task -> its demo, and the fields that make its data set small.
DEMOS = dict(
    image=('vit-demo_minilm_digits', 'indices=16'),
    video=('videomae-demo_minilm_moving-digits', CLIPS),
    pointcloud=('pointbert-demo_minilm_primitives', 'per_class=2'),
    motion=('vectornet-demo_minilm_sim', "root='traffic', counts=dict(train=6, val=4)"),
)

IMPORT_ALL = """
import importlib, pkgutil
import lm4ve.openmmlab
package = importlib.import_module({package!r})
path = getattr(package, '__path__', ())
for module in pkgutil.walk_packages(path, package.__name__ + '.'):
    importlib.import_module(module.name)
"""

LOOK_UP_ALL = """
from lm4ve import registry
registries = [r for r in vars(registry).values() if isinstance(r, registry.Registry)]
for name in {names}:
    assert any(r.get('lm4ve.' + name) for r in registries), name
"""

CORE = """
from mmengine.registry import DATASETS, HOOKS, MODELS
import lm4ve.runner.command_line
from lm4ve.errors import UserError
block = dict(type='LLMBlock', arch=llama)
assert MODELS.build(dict(type='LLMBlockNeck', in_channels=16, block=block)).block.embed_dims == 1024
assert HOOKS.get('lm4ve.AtomicCheckpointHook').__name__ == 'AtomicCheckpointHook'
try:
    DATASETS.get('lm4ve.CheckedImageNet')
except UserError as e:
    print(e)
"""


def small_config(task: str, folder: Path, block: str | None = BLOCK) -> Path:
    """Write a demo's config, made tiny; keeps its model's parts and its logs."""
    name, fields = DEMOS[task]
    base = FOLDERS[task] / f'{name}.py'
    loader = (
        'dict(batch_size=4, num_workers=0, persistent_workers=False, '
        f'dataset=dict({fields}))'
    )
    lines = [
        f"_base_ = '{base}'",
        f'train_dataloader = {loader}',
        f'val_dataloader = {loader}',
        f'test_dataloader = {loader}',
        'train_cfg = dict(max_epochs=1, val_interval=1)',
        'param_scheduler = dict(total_steps=1)',
        'default_hooks = dict(checkpoint=dict(interval=1))',
    ]
    if block:
        lines.append(f'model = dict(neck=dict(block={block}))')
    path = folder / f'{task}.py'
    path.write_text('\n'.join(lines))
    return path


def train(
    task: str, extras: tuple[str, ...], folder: Path, then: str = '', **options
) -> None:
    """Train a demo with the packages of some extras, and run code in the same process."""
    config = small_config(task, folder, **options)
    words = [str(config), '--work-dir', 'run']
    code = f'from lm4ve.commands import main\nmain({["train", *words]})\n'
    run_alone(extras, '-c', code + then, folder=folder)
    (curve,) = folder.glob('run/*/vis_data/events.out.*')
    (scalars,) = folder.glob('run/*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert any('loss' in row for row in rows)
    assert curve.stat().st_size
    assert (folder / 'run/epoch_1.pth').is_file()


def test_the_core_alone_runs_the_readme_and_names_the_extra_of_a_task(tmp_path):
    optional = {'mmcv-lite', 'mmpretrain', 'mmaction2', 'scikit-learn', 'timm'}
    assert needed_by(()).isdisjoint(optional)
    (example,) = [
        block.code
        for block in blocks_of('README.md')
        if block.language == 'python' and block.runs
    ]
    output = run_alone((), '-c', example + CORE, folder=tmp_path, real=True)
    assert 'pip install "lm4ve[image]"' in output
    saved = {p.name for p in (tmp_path / 'vit-llama').iterdir()}
    assert saved == {'lm4ve_config.json', 'lm4ve_model.safetensors'}


@pytest.mark.parametrize(
    'package, extra',
    [
        ('analysis', 'analysis'),
        ('study.trainings', 'ablation'),
        ('study.heads', 'try'),
        ('study.slurm', 'slurm'),
    ],
    ids=str,
)
def test_all_modules_of_an_analysis_need_its_extra_only(package, extra, tmp_path):
    code = IMPORT_ALL.format(package=f'lm4ve.{package}')
    run_alone((extra,), '-c', code, folder=tmp_path)


def test_the_collective_extras_are_their_parts():
    parts = ('activations', 'iou', 'ablation')
    assert needed_by(('analysis',)) == needed_by(parts)
    assert needed_by(('vision-language',)) == needed_by(('vqa', 'rooms'))
    of_tasks = tuple(task.extra for task in all_tasks())
    assert needed_by(('all',)) == needed_by((*of_tasks, *parts, 'try', 'demo'))


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_a_task_trains_and_imports_with_its_extra_only(task, tmp_path):
    declared = get_task(task)
    registered = ['AtomicCheckpointHook']
    for names in declared.registers.values():
        registered.extend(names)
    code = IMPORT_ALL.format(package=declared.package)
    code += LOOK_UP_ALL.format(names=registered)
    if task in DEMOS:
        # The training comes first: its names have to be found without these imports.
        train(task, (declared.extra,), tmp_path, then=code)
    else:
        run_alone((declared.extra,), '-c', code, folder=tmp_path)


@pytest.mark.slow
def test_the_demo_trains_the_embedded_language_model_with_its_extra_only(tmp_path):
    train('image', ('demo',), tmp_path, block=None)


#: Extras -> a command of their own, and what it writes.
COMMANDS = {
    ('image', 'activations'): (
        'analysis/visualize_activations.py {config} none --indices 0 --out-dir out',
        'out/*.html',
    ),
    ('image', 'export'): (
        'export.py {config} none --format onnx --out out/vit.onnx',
        'out/*.onnx',
    ),
    ('image', 'iou'): (
        'analysis/activation_iou.py {textured} none --bootstrap 5 --out-dir out '
        '--cfg-options test_dataloader.dataset.indices=8',
        'out/iou.csv',
    ),
    ('ablation',): ('analysis/ablate.py {grid} --work-dir out', 'out/toy/table.md'),
}


@pytest.mark.slow
@pytest.mark.parametrize('extras', COMMANDS, ids='+'.join)
def test_a_command_needs_its_extras_only(extras, tmp_path):
    command, written = COMMANDS[extras]
    files = dict(
        config=small_config('image', tmp_path),
        textured=FOLDERS['image'] / 'vit-demo_none_textured-digits.py',
        grid=write_grid(tmp_path),
    )
    tool, *words = command.format(**files).split()
    run_alone(extras, ROOT / 'tools' / tool, *words, folder=tmp_path)
    assert list(tmp_path.glob(written))


EXPORT = """
from lm4ve.commands import parse
from lm4ve.commands.export import run
from lm4ve.errors import UserError
try:
    run(parse('export', ['no_config.py', 'no_checkpoint.pth', '--format', 'onnx']))
except UserError as e:
    print(e)
"""


def test_an_export_names_its_extra_before_anything_is_read(tmp_path):
    output = run_alone((), '-c', EXPORT, folder=tmp_path)
    assert output.strip() == (
        '--format onnx needs packages that are not installed: onnx, onnxscript, '
        'onnxruntime. Fix, in the clone: pip install -e ".[export]"'
    )


@pytest.mark.slow
def test_a_study_needs_its_extra_only(tmp_path):
    fill(tmp_path / 'photos', ('cat', 'dog'), 10)
    block = write_huggingface(tmp_path / 'llm', 'llama')
    command = (
        f'timm/resnet10t photos --encoder-checkpoint none --block {block} --workers 0 '
        '--steps 10 --seeds 2 --size 32 --variants frozen random'
    )
    code = f'from lm4ve.commands import main\nmain({["try", *command.split()]})\n'
    run_alone(('try',), '-c', code, folder=tmp_path)
    assert '>random</td>' in next(tmp_path.rglob('report.html')).read_text()
