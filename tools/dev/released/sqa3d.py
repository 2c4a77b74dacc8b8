"""Run SQA3D's data set on a scene and store its samples, for tests/tasks/rooms.

    git clone https://github.com/SilongYong/SQA3D FOLDER
    git -C FOLDER checkout a98da8fda65f81f614bdfed48c27aae34975c566
    python tools/dev/released/sqa3d.py FOLDER tests/data/released/sqa3d.npz

The scene follows from a seed (``tests/helpers/rooms/scenes.py``). Stored are, of samples
with and without augmentation, the random numbers that were drawn and what the model
gets. The first sample of a scene counts, whose colors are not yet normalized twice. The
data set is built without its constructor, which reads the questions of all scenes with
spaCy; tests/tasks/rooms/test_prepare.py looks words up as it does.
"""

import importlib
import sys
import tempfile
import types
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests.helpers.rooms import scenes  # noqa: E402

#: Seeds whose samples are mirrored along no axis, x, y and both.
SEEDS = (1, 5, 4, 2)
POINTS = 40
#: What the model and its loss get.
KEYS = (
    'point_clouds',
    'vote_label',
    'vote_label_mask',
    'center_label',
    'size_class_label',
    'size_residual_label',
    'box_label_mask',
    'auxiliary_task',
)


def main() -> None:
    """Store the samples of a scene."""
    parser = ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('checkout', type=Path)
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    module = import_data_set(args.checkout)
    stored: dict[str, np.ndarray] = {}
    for case, seed in enumerate((None, *SEEDS)):
        data_set = build(module, augment=seed is not None)
        np.random.seed(seed or 0)
        sample, drawn = read_sample(data_set)
        for name in KEYS:
            stored[f'{case}/{name}'] = sample[name]
        for name, numbers in drawn.items():
            stored[f'{case}/{name}'] = numbers
    stored['mean_sizes'] = module.DC.mean_size_arr
    np.savez_compressed(args.out, **stored)
    print(f'{args.out}: {len(stored)} arrays, {args.out.stat().st_size} bytes')


def import_data_set(checkout: Path) -> Any:
    """Import ``lib/sepdataset.py`` with the paths of the checkout and without packages to draw."""
    scannet = checkout / 'assets/data/scannet'
    paths = types.SimpleNamespace(
        SCANNET=str(scannet), SCANNET_META=str(scannet / 'meta_data'), DATA=''
    )
    config: Any = types.ModuleType('lib.config')
    config.CONF = types.SimpleNamespace(
        PATH=paths, MULTIVIEW='', TRAIN=types.SimpleNamespace(MAX_TEXT_LEN=100)
    )
    sys.modules['lib.config'] = config
    for name in ('plyfile', 'trimesh', 'matplotlib', 'matplotlib.pyplot'):
        sys.modules[name] = mock.MagicMock()
    sys.path[:0] = [str(checkout / 'ScanQA'), str(checkout / 'assets')]
    return importlib.import_module('lib.sepdataset')


def build(module: Any, augment: bool) -> Any:
    """Return the released data set with one question about one scene."""
    name = 'scene0000_00'
    with tempfile.TemporaryDirectory() as folder:
        arrays = scenes.write_scene(Path(folder), name)
    entry = scenes.entries([name])[1]
    corners = arrays['vert'][:, :3]
    objects = np.isin(arrays['aligned_bbox'][:, 6], module.DC.nyu40ids)
    data_set = object.__new__(module.ScannetQADataset)
    words = dict(s_len=1, q_len=1, s_feat=np.zeros((1, 1)), q_feat=np.zeros((1, 1)))
    # As `ScannetQADataset._load_data` reads the files of a scene.
    scene = dict(
        mesh_vertices=arrays['aligned_vert'].copy(),
        bs_center=(corners.max(0) + corners.min(0)) / 2,
        axis_align_matrix=scenes.ALIGNMENT,
        instance_labels=arrays['ins_label'],
        semantic_labels=arrays['sem_label'],
        instance_bboxes=arrays['aligned_bbox'][objects],
    )
    counts = {answer: scenes.ANSWERS.count(answer) for answer in scenes.ANSWERS}
    vars(data_set).update(
        sqa=[entry],
        split='train',
        augment=augment,
        debug=False,
        test=False,
        use_color=True,
        use_height=True,
        use_normal=False,
        use_multiview=False,
        use_unanswerable=False,
        num_points=POINTS,
        answer_cls_loss='bce',
        answer_counter=counts,
        answer_vocab=module.Answer(sorted(counts)),
        num_answers=len(counts),
        lang={name: {entry['question_id']: words}},
        scene_data={name: scene},
        scene_id_to_number={name: 0},
    )
    return data_set


def read_sample(data_set: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a sample, and the points, random numbers and shifts that were drawn for it."""
    choose = np.random.choice
    draw = np.random.random
    chosen: list[Any] = []
    numbers: list[float] = []

    def choose_and_note(*args: Any, **kwargs: Any) -> Any:
        chosen.append(choose(*args, **kwargs))
        return chosen[-1]

    def draw_and_note() -> float:
        numbers.append(draw())
        return numbers[-1]

    with (
        mock.patch.object(np.random, 'choice', choose_and_note),
        mock.patch.object(np.random, 'random', draw_and_note),
    ):
        sample = data_set[0]
    shift = np.array(chosen[1:]).ravel()
    return sample, dict(points=chosen[0], numbers=np.array(numbers), shift=shift)


if __name__ == '__main__':
    main()
