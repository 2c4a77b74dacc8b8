"""Which task a config belongs to: by the first word of its name.

Each task tests its own configs (``tests/<task>/test_configs.py``; the image
task in ``tests/tasks/image/test_configs.py``), and no config may go untested.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs' / 'lm4ve'

#: Task -> how the names of its configs begin.
TASKS = {
    'image': ('vit-', 'resnet50_', 'swin-t_', 'convnext-t_'),
    'video': ('videomae-', 'tsn-', 'swin3d-'),
    'pointcloud': ('pointbert', 'pointmae'),
    'motion': ('vectornet', 'mmtransformer'),
}


def all_configs() -> list:
    """Return every config file of ours, relative to ``configs/lm4ve``."""
    return sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob('*.py'))


def configs_of(task: str) -> list:
    """Return the config files of a task, relative to ``configs/lm4ve``."""
    return [c for c in all_configs() if Path(c).name.startswith(TASKS[task])]
