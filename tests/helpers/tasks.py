"""Which task a config belongs to: the folder that it lies in says so.

Each task tests its own configs (``tests/tasks/<task>/test_configs.py``), and no
config may go untested (``tests/zoo/test_config_folders.py``).
"""

from pathlib import Path

from lm4ve.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'

#: Task -> its config folder, which has its name. The paper's image experiments lie in
#: the algorithm's.
FOLDERS = {task: CONFIGS / task for task in TASKS}
FOLDERS['image'] = CONFIGS / 'lm4ve'

#: Config folders of hosts that train the neck by themselves (``tests/hosts``).
HOSTS = ('detection', 'segmentation')


def configs_of(name: str) -> list[str]:
    """Return the config files of a task or host, relative to its folder."""
    folder = FOLDERS.get(name, CONFIGS / name)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*.py'))


#: The config files of all tasks and hosts.
CONFIG_FILES = [FOLDERS[task] / name for task in FOLDERS for name in configs_of(task)]
CONFIG_FILES += [CONFIGS / host / name for host in HOSTS for name in configs_of(host)]
