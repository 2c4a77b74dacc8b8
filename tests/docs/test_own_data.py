"""The configs of "Your own data" train, test and predict on made-up files of their layouts."""

import os

import pytest

from tests.helpers import quick_python
from tests.helpers.code_blocks import ROOT, blocks_of
from tests.helpers.image import images
from tests.helpers.motion.argoverse2_files import write_argoverse2
from tests.helpers.pointcloud.clouds import cloud, write_cloud
from tests.helpers.rooms.scenes import write_sqa3d
from tests.helpers.tools import run_command
from tests.helpers.video.videos import write_list, write_noise
from tests.helpers.vqa.files import write_csv, write_image

PAGE = 'docs/get_started/your_own_data.md'
BLOCKS = blocks_of(PAGE)
CONFIGS = {b.code.split()[1]: b.code for b in BLOCKS if b.language == 'python'}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
OPTIONS = ' '.join(f'{x}.num_workers=0 {x}.persistent_workers=False' for x in LOADERS)
PREDICT = (
    "import lm4ve; assert lm4ve.apis.inference('{0}/{1}.py', '{0}/epoch_1.pth', {2})"
)

#: Config -> inputs of its model, and what keeps its training short.
RUNS = {
    'photos.py': ("'data/photos/val/cat'", 'train_dataloader.batch_size=3'),
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
        clips = [write_noise(data / f'clips/{split}{i}.mp4', seed=i) for i in range(3)]
        write_list(data / f'clips/{split}.txt', [c.name for c in clips])
        files = [
            write_image(data / f'mine/images/a/{split}{i}.png', i) for i in range(4)
        ]
        rows = [
            dict(image=f'a/{f.name}', question='Is it 1?', answer='yes') for f in files
        ]
        write_csv(data / f'mine/{split}.csv', rows)
        rows = [dict(image=f'a/{f.name}', captions=f'{f.stem}|Noise') for f in files]
        write_csv(data / f'mine/captions_{split}.csv', rows)
    for i, suffix in enumerate(('.ply', '.xyz', '.npy') * 4):
        path = (
            data
            / f'scans/{("train", "test")[i // 8]}/{("bolt", "nut")[i % 2]}/{i}{suffix}'
        )
        write_cloud(
            path, 1000 * cloud(900 + 200 * i, i)
        )  # millimeters, of several sizes
    write_argoverse2(data / 'traffic', dict(train=4, val=2))
    write_sqa3d(data / 'office')
    return made


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_config_trains_tests_and_predicts(name, folder):
    inputs, short = RUNS[name]
    stem = name.removesuffix('.py')
    train = (
        'param_scheduler=[] train_cfg.max_epochs=1 default_hooks.checkpoint.interval=1'
    )
    commands = [
        *(
            c
            for b in BLOCKS
            if b.language == 'bash' and stem in b.code
            for c in b.commands
        ),
        f'lm4ve train {name} --cfg-options {train} {OPTIONS} {short}',
        f'lm4ve test {name} work_dirs/{stem}/epoch_1.pth --cfg-options {OPTIONS} {short}',
        f'python -c "{PREDICT.format(f"work_dirs/{stem}", stem, inputs)}"',
    ]
    script, env = '\n'.join(commands), {**os.environ, 'PATH': quick_python.path()}
    done = run_command('bash', '-eu', '-c', script, cwd=folder, env=env, timeout=480)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
