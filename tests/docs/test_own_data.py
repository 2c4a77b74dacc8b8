"""The configs of "Your own data" train, test and predict on made-up files of their layouts."""

import os
import shlex
from pathlib import Path

import pytest

from tests.helpers import quick_python
from tests.helpers.code_blocks import ROOT, blocks_of
from tests.helpers.image import images
from tests.helpers.motion.argoverse2_files import write_argoverse2
from tests.helpers.pointcloud.clouds import cloud, write_cloud
from tests.helpers.rooms.scenes import write_sqa3d
from tests.helpers.tools import run_command, run_tool_here
from tests.helpers.video.videos import write_list, write_noise
from tests.helpers.vqa.files import write_csv, write_image

PAGE = 'docs/get_started/your_own_data.md'
BLOCKS = blocks_of(PAGE)
PYTHON = [b.code for b in BLOCKS if b.language == 'python']
#: A config begins with its name.
CONFIGS = {code.split()[1]: code for code in PYTHON if code.startswith('# ')}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
#: Read the data in this process.
OPTIONS = ' '.join(f'{x}.num_workers=0 {x}.persistent_workers=False' for x in LOADERS)
#: Train for an epoch.
SHORT = 'param_scheduler=[] train_cfg.max_epochs=1 default_hooks.checkpoint.interval=1'

#: Config -> inputs of its model, and what keeps its training short.
RUNS = {
    'photos.py': ("'data/photos/val/cat'", 'train_dataloader.batch_size=3'),
    'photos_resnet.py': (
        "'data/photos/val/cat'",
        'train_dataloader.batch_size=3 model.backbone.pretrained=False',
    ),
    'photos_vit.py': ("'data/photos/val/cat'", 'train_dataloader.batch_size=3'),
    'clips.py': (
        "'data/clips/*.mp4'",
        'train_dataloader.batch_size=2 model.backbone.depth=1',
    ),
    'scans.py': ("'data/scans/test'", 'train_dataloader.batch_size=4'),
    'traffic.py': ("'data/traffic/val'", ''),
    'questions.py': ("'data/mine/images/a', question='Is it 1?'", ''),
    'captions.py': ("'data/mine/**/*.png', caption='Noise 1'", ''),
    'rooms.py': (
        "'data/office/scannet_data/*_aligned_vert.npy', "
        "situation='I sit on the chair.', question='Is the table left of me?'",
        '',
    ),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with the page's configs and files in all their layouts."""
    made = tmp_path_factory.mktemp('own')
    data = made / 'data'
    for name, code in CONFIGS.items():
        (made / name).write_text(code)
    (made / 'tools').symlink_to(ROOT / 'tools')
    for split in ('train', 'val'):
        images.fill(data / 'photos' / split, ('cat', 'dog'))
        write_clips(data / 'clips', split)
        write_questions_and_captions(data / 'mine', split)
    write_scans(data / 'scans')
    write_argoverse2(data / 'traffic', dict(train=4, val=2))
    write_sqa3d(data / 'office')
    return made


def write_clips(folder: Path, split: str) -> None:
    names = [f'{split}{i}.mp4' for i in range(3)]
    for seed, name in enumerate(names):
        write_noise(folder / name, seed=seed)
    write_list(folder / f'{split}.txt', names)


def write_questions_and_captions(folder: Path, split: str) -> None:
    questions = []
    captions = []
    for i in range(4):
        image = f'a/{split}{i}.png'
        write_image(folder / 'images' / image, i)
        questions.append(dict(image=image, question='Is it 1?', answer='yes'))
        captions.append(dict(image=image, captions=f'{split}{i}|Noise'))
    write_csv(folder / f'{split}.csv', questions)
    write_csv(folder / f'captions_{split}.csv', captions)


def write_scans(folder: Path) -> None:
    """Write clouds in millimeters, of several sizes, in every format."""
    for i, suffix in enumerate(['.ply', '.xyz', '.npy'] * 4):
        split = 'train' if i < 8 else 'test'
        label = 'bolt' if i % 2 == 0 else 'nut'
        points = 1000 * cloud(900 + 200 * i, i)
        write_cloud(folder / split / label / f'{i}{suffix}', points)


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_config_trains_tests_and_predicts(name, folder):
    inputs, options = RUNS[name]
    stem = name.removesuffix('.py')
    run = f'work_dirs/{stem}'
    commands = []
    for block in BLOCKS:
        is_split = 'split_folder' in block.code
        if block.language == 'bash' and stem in block.code and not is_split:
            commands.extend(block.commands)
    commands += [
        f'lm4ve train {name} --cfg-options {SHORT} {OPTIONS} {options}',
        f'lm4ve test {name} {run}/epoch_1.pth --cfg-options {OPTIONS} {options}',
        'python -c "import lm4ve; assert lm4ve.apis.inference('
        f"'{run}/{name}', '{run}/epoch_1.pth', {inputs})\"",
    ]
    script = '\n'.join(commands)
    env = {**os.environ, 'PATH': quick_python.path()}
    done = run_command('bash', '-eu', '-c', script, cwd=folder, env=env, timeout=480)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]


def test_a_folder_of_classes_is_split_into_train_and_val(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images.fill(tmp_path / 'photos', ('cat', 'dog'), count=5)
    Path('photos/notes.txt').touch()
    for suffix in ('.jpg', '.webp'):
        twin = images.encode(seed=99, suffix='.png')
        Path(f'photos/cat/twin{suffix}').write_bytes(twin)
    before = {path.name for path in Path('photos/cat').iterdir()}
    (command,) = [
        command
        for block in BLOCKS
        if 'split_folder' in block.code
        for command in block.commands
    ]
    _, tool, *arguments = shlex.split(command, comments=True)
    run_tool_here(tool.removeprefix('tools/'), *arguments)
    for name in ('cat', 'dog'):
        train = {path.name for path in Path('data/photos/train', name).iterdir()}
        val = {path.name for path in Path('data/photos/val', name).iterdir()}
        assert train and val and not train & val
        assert len({'twin.jpg', 'twin.webp'} & val) in (0, 2)
    assert {path.name for path in Path('photos/cat').iterdir()} == before
