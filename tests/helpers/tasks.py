"""Which task a config belongs to: the folder that it lies in says so.

Each task tests its own configs (``tests/tasks/<task>/test_configs.py``), and no
config may go untested (``tests/zoo/test_config_folders.py``). A task of a project beside
lm4ve has its configs in the project and its tests in ``tests/projects/<project>``.
"""

from pathlib import Path

import llm4seg  # noqa: F401  (the import adds the project's task)
from lm4ve.tasks import TASKS
from lm4ve.zoo import PROJECTS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'

#: Task -> its config folder, which has its name. The paper's image experiments lie in
#: the algorithm's.
FOLDERS = {task: CONFIGS / task for task in TASKS}
FOLDERS['image'] = CONFIGS / 'lm4ve'
#: Task -> the folder of its tests.
TESTS = {task: ROOT / 'tests/tasks' / task for task in TASKS}
for _task, _project in PROJECTS.items():
    FOLDERS[_task] = ROOT / 'projects' / _project / 'configs'
    TESTS[_task] = ROOT / 'tests/projects' / _project

#: The folders of all configs, with the pieces that they inherit.
CONFIG_ROOTS = [CONFIGS, *(FOLDERS[task] for task in PROJECTS)]

#: Config folders of hosts that train the neck by themselves (``tests/hosts``).
HOSTS = ('detection', 'segmentation')


def configs_of(name: str) -> list[str]:
    """Return the config files of a task or host, relative to its folder."""
    folder = FOLDERS.get(name, CONFIGS / name)
    files = [p.relative_to(folder) for p in folder.rglob('*.py')]
    # A project's pieces lie below its configs.
    return sorted(str(file) for file in files if '_base_' not in file.parts)


#: The config files of all tasks and hosts.
CONFIG_FILES = [FOLDERS[task] / name for task in FOLDERS for name in configs_of(task)]
CONFIG_FILES += [CONFIGS / host / name for host in HOSTS for name in configs_of(host)]
