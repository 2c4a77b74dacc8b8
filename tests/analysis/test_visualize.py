"""The tool and the hook, from a config and files to pictures and a page, for every task."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain')
pytest.importorskip('mmaction')
import random
from types import SimpleNamespace

import av  # noqa: E402
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS  # noqa: E402
from mmpretrain.models.classifiers.base import BaseClassifier  # noqa: E402
from PIL import Image  # noqa: E402
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from lm4ve.analysis import analyse, drawing, loading  # noqa: E402
from lm4ve.analysis.visualizer_hook import ActivationVisHook  # noqa: E402
from lm4ve.errors import UserError  # noqa: E402
from lm4ve.runner.command_line import build_runner  # noqa: E402
from lm4ve.runner.config import read_config  # noqa: E402
from tests.helpers.html import Links  # noqa: E402
from tests.helpers.logs import record_logs  # noqa: E402
from tests.helpers.models import neck  # noqa: E402
from tests.helpers.pointcloud.clouds import cloud  # noqa: E402
from tests.helpers.shrink import shrinker_of  # noqa: E402
from tests.helpers.tools import run_lm4ve  # noqa: E402

# The hook changes nothing of a training, to the bit.
pytestmark = pytest.mark.bitwise


def visualize(*args) -> None:
    """Run the command on the CPU; texts are split into words, paths are not."""
    words = (a.split() if isinstance(a, str) else [str(a)] for a in args)
    run_lm4ve('visualize', ['--device', 'cpu', *itertools.chain(*words)])


def written(cfg, folder: Path) -> Path:
    path = folder / 'tiny.py'
    cfg.dump(path)
    return path


def page(folder: Path) -> Links:
    text = (folder / 'index.html').read_text()
    assert '://' not in text
    found = Links(text)
    assert all(u.startswith(('data:', '#s')) for u in found.links)
    return found


def is_sheet(path: Path) -> bool:
    with Image.open(path) as image:
        return min(image.size) > 400 and np.asarray(image.convert('L')).std() > 20


# ------------------------------------------------------------------------- images
@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """A config, a checkpoint after one step, and a picture."""
    folder = tmp_path_factory.mktemp('digits')
    cfg = shrinker_of('image', folder).load('vit-demo_minilm_digits.py', folder / 'run')
    config, picture = written(cfg, folder), folder / 'my cat.png'
    build_runner(cfg).train()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    cv2.imwrite(str(picture), pixels)
    return config, folder / 'run/epoch_1.pth', picture


def test_files_and_indices_become_sheets_and_a_page(digits, tmp_path, capsys):
    flags = '--measures frequency --out-dir'
    visualize(*digits, '--indices 3', flags, tmp_path)
    printed = capsys.readouterr().out.split()
    names = ['my_cat.png', 'test_00003.png']
    assert printed[-3:] == [str(tmp_path / name) for name in (*names, 'index.html')]
    for name in names:
        assert is_sheet(tmp_path / name)
    words = page(tmp_path).words
    expected = [
        'my_cat',
        'test_00003',
        'prediction:',
        'truth:',
        'neck.mapper_in',
        'frequency',
        'attention entropy',
        str(digits[1]),
        '--indices',
    ]
    assert [word for word in expected if word not in words] == []
    assert words.count('truth:') == 1  # of the test sample alone
    # Two attentions of 4 and 12 heads take more rows than three heads do.
    visualize(*digits, flags, tmp_path / 'all', '--all-heads')
    few = Image.open(tmp_path / 'my_cat.png').height
    every = Image.open(tmp_path / 'all/my_cat.png').height
    assert every > 1.2 * few


def test_folder_becomes_a_sheet_for_each_whole_picture(digits, tmp_path, monkeypatch):
    config, checkpoint, picture = digits
    content = picture.read_bytes()
    inner = tmp_path / 'my photos' / 'Größe'
    inner.mkdir(parents=True)
    files = [inner / 'ein Bäumchen.png', inner / 'a.png', inner.parent / 'a.png']
    files.append(inner.parent / '0_a.png')
    for file in files:
        file.write_bytes(content)
    (inner / 'cut.png').write_bytes(content[:99])
    warnings = record_logs(monkeypatch, 'lm4ve.tasks.base.inputs')
    out = tmp_path / 'out'
    run_lm4ve(
        'visualize',
        [str(config), str(checkpoint), str(inner.parent), '--out-dir', str(out)],
    )
    assert len(list(out.glob('*.png'))) == len(files)
    (warning,) = warnings
    assert '1 of 5 files' in warning and f'{inner}/cut.png' in warning
    text = (out / 'index.html').read_text()
    for file in files:
        assert str(file) in text


def test_a_file_and_its_test_sample_are_equal(digits, tmp_path):
    """The set's own pixels, from a PNG: the pipeline is the same."""
    cfg = read_config(digits[0])
    (sample,) = loading.samples_by_index(cfg, [5])
    pixels = sample.data['inputs'].permute(1, 2, 0).numpy()
    cv2.imwrite(str(tmp_path / 'five.png'), pixels)
    (read,) = loading.samples_of_files(cfg, [tmp_path / 'five.png'])
    assert torch.equal(read.data['inputs'], sample.data['inputs'])


def test_colours_and_names_of_files_are_kept(digits, tmp_path):
    files = [tmp_path / folder / 'red.png' for folder in 'ab']
    for file in files:
        file.parent.mkdir()
        cv2.imwrite(str(file), np.full((8, 8, 3), (0, 0, 255), np.uint8))
    # What the preprocessor turns round arrives as BGR.
    for to_rgb, expected in ((True, [0, 0, 255]), (False, [255, 0, 0])):
        cfg = read_config(digits[0], {'data_preprocessor.to_rgb': to_rgb})
        first, second = loading.samples_of_files(cfg, files)
        assert (first.name, second.name) == ('0_red', '1_red')
        assert first.data['inputs'][:, 0, 0].tolist() == expected


class Convolution(BaseClassifier):
    """A backbone whose map has other proportions than its picture."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Conv2d(3, 8, (16, 5), (16, 5))
        self.neck = MODELS.build(neck(8))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.neck(self.backbone(inputs))
        return [{}] * len(inputs)


@pytest.mark.parametrize('points', [None, dict(b='neck.block')])
def test_tokens_of_a_map_have_its_grid_inside_the_neck(points):
    analysis = analyse(Convolution(), dict(inputs=torch.rand(2, 3, 32, 32)), points)
    captured = [*analysis.points.values(), *analysis.attention.values()]
    assert {entry.layout.grid for entry in captured} == {(2, 6)}


# -------------------------------------------------------------------- other tasks
@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """``tiny(task, name)``: the path of a shrunk config, whose files are in ``tmp_path``."""

    def write(task: str, name: str) -> Path:
        shrinker = shrinker_of(task, tmp_path)
        shrinker.enter(monkeypatch)
        return written(shrinker.load(name, tmp_path / 'run'), tmp_path)

    return write


def test_videos_become_sheets_and_movies(tiny, tmp_path):
    config = tiny('video', 'videomae-demo_minilm_moving-digits.py')
    cfg = read_config(config)
    (indexed,) = loading.samples_by_index(cfg, [3])  # writes the set
    video = tmp_path / 'data/moving-digits/test/3.mp4'
    frames = tmp_path / 'frames'
    out = tmp_path / 'out'
    frames.mkdir()
    with av.open(str(video)) as container:
        # 8.png ... 15.png: they are sorted by number, not as texts.
        for number, frame in enumerate(container.decode(video=0), 8):
            pixels = frame.to_ndarray(format='rgb24')
            Image.fromarray(pixels).save(frames / f'{number}.png')
    flags = '--points b=neck.block --no-attention --fps 2'
    visualize(config, 'none', video, '--out-dir', out, flags)
    assert sorted(p.name for p in out.iterdir()) == ['3.mp4', '3.png', 'index.html']
    assert is_sheet(out / '3.png')
    with av.open(str(out / '3.mp4')) as container:
        assert sum(1 for _ in container.decode(video=0)) == 8
    assert any(u.startswith('data:video/mp4') for u in page(out).links)
    clip, folder = loading.samples_of_files(cfg, [video, frames])
    for sample in (folder, indexed):
        difference = sample.data['inputs'].float() - clip.data['inputs'].float()
        assert difference.abs().max() <= 3  # decoders round differently


def test_clouds_of_any_size_become_sheets(tiny, tmp_path):
    config = tiny('pointcloud', 'pointbert-demo_minilm_primitives.py')
    file = tmp_path / 'mine.npy'
    out = tmp_path / 'out'
    np.save(file, 40 * cloud(300) + 7)
    visualize(config, '-', file, '--indices 1 --no-attention --out-dir', out)
    assert is_sheet(out / 'mine.png')
    assert 'sphere' in page(out).words
    assert 'test_00001' in page(out).words
    (given,) = loading.samples_of_files(read_config(config), [file])
    # Brought to where the set's objects are.
    assert 0.5 < given.data['inputs'].norm(dim=1).max() <= 1 + 1e-6


def test_scenes_become_sheets(tiny, tmp_path):
    config = tiny('motion', 'vectornet-demo_minilm_sim.py')
    cfg = read_config(config)
    out = tmp_path / 'out'
    (indexed,) = loading.samples_by_index(cfg, [0])
    scene_id = indexed.data['scene'].scene_id
    file = tmp_path / f'data/traffic-sim/val/data/{scene_id}.csv'
    visualize(config, 'none', file, '--out-dir', out)
    assert is_sheet(out / f'{scene_id}.png')
    assert 'minFDE' in page(out).words
    (read,) = loading.samples_of_files(cfg, [file])
    np.testing.assert_allclose(read.data['agents'], indexed.data['agents'], atol=1e-3)


# ----------------------------------------------------------------------- mistakes
WRONG_INPUTS = [
    (['missing.jpg'], "missing.jpg' does not exist"),
    (['clip.mp4'], "clip.mp4' does not fit: the config takes an image; .*jpg"),
    ([], 'no inputs'),
    (['--indices 0 --points a=neck.blok'], "'neck.blok' is no"),
]


@pytest.mark.parametrize('args, message', WRONG_INPUTS)
def test_wrong_inputs_are_refused(digits, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'clip.mp4').touch()
    with pytest.raises(UserError, match=message):
        visualize(digits[0], digits[1], *args, '--out-dir out')
    assert not (tmp_path / 'out').exists()


DIGITS = 'vit-demo_minilm_digits.py'
#: Four panels instead of sixteen: quick to draw.
SMALL = dict(enable=True, measures=['frequency'], attention=False)
#: Of the first line of a sheet, in pixels.
NAME_HEIGHT = 24


def digits_runner(work_dir: Path, epochs: int = 2, backends=(), before=(), **hook):
    """16 images to train with, 16 to validate with, in batches of 8."""
    cfg = shrinker_of('image', work_dir).load(DIGITS, work_dir, epochs)
    cfg.visualizer.vis_backends = [dict(type=b) for b in backends]
    cfg.default_hooks.checkpoint.interval = -1
    if hook:
        cfg.custom_hooks = [*before, dict(type='lm4ve.ActivationVisHook', **hook)]
    return build_runner(cfg)


def train_from_the_same_start(runner) -> dict:
    """Train a model that uses every generator, as one with dropout at test time would."""

    def draw(*_):
        torch.rand(1)
        np.random.rand()
        random.random()

    runner.model.backbone.register_forward_pre_hook(draw)
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    runner.train()
    state = runner.model.state_dict()
    return {name: tensor.clone() for name, tensor in state.items()}


# ------------------------------------------------------------------- what is drawn
@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Two epochs of two steps, with pictures to two backends."""
    root = tmp_path_factory.mktemp('with')
    runner = digits_runner(
        root,
        backends=('LocalVisBackend', 'TensorboardVisBackend'),
        enable=True,
        interval=9,
    )
    return root, train_from_the_same_start(runner), runner


def test_pictures_go_to_the_backends_at_their_steps(trained):
    root = trained[0]
    expected = set()
    for step in (2, 4):
        expected.add(('val_activations_00000', step))
        expected.add(('val_activations_00009', step))
    files = {p.stem: p for p in root.glob('*/vis_data/vis_image/*.png')}
    assert set(files) == {f'{name}_{step}' for name, step in expected}
    sheet = cv2.imread(str(files['val_activations_00009_2']))
    # RGB all the way: the high end of the colour map is yellow, not cyan.
    b, g, r = sheet.reshape(-1, 3).astype(int).T
    assert ((r > 200) & (g > 200) & (b < 120)).sum() > 50
    folder = next(root.glob('*/vis_data'))
    events = EventAccumulator(str(folder), dict(images=0)).Reload()
    logged = set()
    for tag in events.Tags()['images']:
        for event in events.Images(tag):
            logged.add((tag, event.step))
    assert logged == expected


def test_training_is_bit_equal_without_the_hook(trained, tmp_path):
    without = train_from_the_same_start(digits_runner(tmp_path))
    torch.testing.assert_close(trained[1], without, rtol=0, atol=0)


def pictures_of(runner, hook, batch, mode: str, model=None) -> list:
    """Give the hook a batch; return the pictures' names and pixels."""
    pictures = []
    with torch.no_grad():
        outputs = runner.model.val_step(batch)
    visualizer = SimpleNamespace(
        dataset_meta=runner.visualizer.dataset_meta,
        add_image=lambda name, image, step: pictures.append((name, image)),
    )
    stub = SimpleNamespace(
        model=runner.model if model is None else model,
        cfg=runner.cfg,
        visualizer=visualizer,
        iter=5,
        experiment_name='a',
    )
    hook.before_run(stub)
    getattr(hook, f'before_{mode}_epoch')(stub)
    getattr(hook, f'after_{mode}_iter')(stub, 0, batch, outputs)
    return pictures


def one_batch(runner, hook, mode: str = 'val', model=None) -> list:
    """Give the hook the loader's first batch; return the pictures' names."""
    batch = next(iter(runner.val_dataloader))
    return [name for name, _ in pictures_of(runner, hook, batch, mode, model)]


def test_interval_and_max_samples_limit_the_pictures(trained):
    runner = trained[2]
    assert one_batch(runner, ActivationVisHook()) == []
    hook = ActivationVisHook(interval=2, max_samples=2, **SMALL)
    expected = [f'test_activations_{i:05d}' for i in (0, 2)]
    assert one_batch(runner, hook, 'test') == expected
    # Counted anew in each epoch.
    assert one_batch(runner, hook, 'test') == expected


def test_a_distributed_model_is_drawn_without_communication(
    trained, monkeypatch, tmp_path
):
    torch.distributed.init_process_group(
        'gloo',
        store=torch.distributed.FileStore(str(tmp_path / 's'), 1),
        rank=0,
        world_size=1,
    )
    try:
        wrapped = MMDistributedDataParallel(trained[2].model)
        monkeypatch.setattr(wrapped, 'forward', None)  # whose forward would wait
        names = one_batch(trained[2], ActivationVisHook(**SMALL), model=wrapped)
        assert names == ['val_activations_00000']
    finally:
        torch.distributed.destroy_process_group()


def test_the_average_is_drawn_where_it_is_evaluated(tmp_path, monkeypatch):
    drawn = []
    analyse = drawing.analyse

    def record(model, *args):
        drawn.append(model.neck.mapper_in.weight.clone())
        return analyse(model, *args)

    monkeypatch.setattr(drawing, 'analyse', record)
    runner = digits_runner(
        tmp_path, 1, before=[dict(type='EMAHook', momentum=0.5)], **SMALL
    )
    runner.train()
    ema = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    average = ema.ema_model.module.neck.mapper_in.weight
    assert not torch.equal(average, runner.model.neck.mapper_in.weight)
    assert torch.equal(drawn[0], average)


def test_the_hook_draws_what_the_command_draws(digits, tmp_path, monkeypatch):
    config, checkpoint, _ = digits
    # The note under the name: the hook's is 'a, test, iteration 5'.
    config.with_name('a.py').write_bytes(config.read_bytes())
    monkeypatch.chdir(tmp_path)
    Path('test, iteration 5').write_bytes(checkpoint.read_bytes())
    folder = tmp_path / 'out'
    words = [str(config.with_name('a.py')), 'test, iteration 5']
    run_lm4ve(
        'visualize',
        [*words, '--device', 'cpu', '--indices', '0', '--out-dir', str(folder)],
    )
    by_command = np.asarray(Image.open(folder / 'test_00000.png').convert('RGB'))

    cfg = read_config(config)
    cfg.load_from = str(checkpoint)
    runner = build_runner(cfg)
    runner.load_or_resume()
    hook = ActivationVisHook(enable=True, max_samples=1)
    batch = next(iter(runner.test_dataloader))
    ((name, by_hook),) = pictures_of(runner, hook, batch, 'test')
    assert name == 'test_activations_00000'
    # The first line is the sample's name, which the command calls 'test_00000'.
    assert by_hook.shape == by_command.shape
    assert np.array_equal(by_hook[NAME_HEIGHT:], by_command[NAME_HEIGHT:])


# ------------------------------------------------------------------------ mistakes
def test_a_drawing_error_does_not_end_training(tmp_path, monkeypatch):
    def refuse(*args):
        raise UserError('not finite')

    monkeypatch.setattr(drawing, 'analyse', refuse)
    digits_runner(tmp_path, epochs=1, enable=True).train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('ActivationVisHook draws no activations: not finite') == 1
