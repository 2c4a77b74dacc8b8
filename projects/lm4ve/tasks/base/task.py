"""The declaration of a task, the table of all tasks, and the task of a config or of a model.

The rest of the package reaches a task through its declaration alone: registries,
commands, exports and the analysis of activations. To add a task, write a folder like
those beside this one and name it in the table of :mod:`lm4ve.tasks`.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from lm4ve import compat, registry
from lm4ve.errors import UserError, listing, require


@dataclass(frozen=True)
class Task:
    """One task of the suite. Declaring it imports nothing of the task.

    Attributes:
        name (str): Its short name. The folder of its configs has it, too; only those
            of 'image' lie in ``configs/lm4ve``, as mmpretrain names folders by method,
            and those of a project in its own folder.
        title (str): Its name in messages, for example 'motion forecasting'.
        package (str): The Python package, ``__name__`` of its ``__init__.py``.
        extra (str): The extra of this distribution that installs its packages.
        models (tuple[str, ...]): Full names of the classes that its models derive
            from; a config or a model belongs to the task if one of them is among
            the bases of its class.
        registers (Mapping[str, tuple[str, ...]]): Module below the package to the
            names that it registers, for example
            ``{'datasets': ('DigitsDataset', )}``.
        exports (Mapping[str, tuple[str, ...]]): Module to further public names of the
            package, beside the registered ones.
        input_noun (str): The model's input, for example 'an image'.
        input_suffixes (tuple[str, ...]): Endings of the files that hold it.
        takes_folders (bool): A folder may stand for one input.
        tta_model (str): Type of the model that averages the predictions for an input
            and its mirror image, which ``tools/test.py --tta`` uses by default; empty
            where a mirror image may be of another class.
        inferencer (str): Full name of the class that applies the task's models to a
            user's inputs, for :mod:`lm4ve.apis`. By default it reads and draws by
            :attr:`protocol`.
        input_options (Mapping[str, str]): Name to help text of options that reading a
            file may need; ``lm4ve visualize`` has a flag for each.
    """

    name: str
    title: str
    package: str
    extra: str
    models: tuple[str, ...]
    registers: Mapping[str, tuple[str, ...]]
    input_noun: str
    input_suffixes: tuple[str, ...]
    takes_folders: bool = False
    tta_model: str = ''
    inferencer: str = 'lm4ve.tasks.base.inference.FileInferencer'
    input_options: Mapping[str, str] = field(default_factory=dict)
    exports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def recognizes(self, model_class: Any) -> bool:
        """Return whether a class is a model of this task."""
        for base in getattr(model_class, '__mro__', ()):
            if f'{base.__module__}.{base.__qualname__}' in self.models:
                return True
        return False

    def attribute(self, name: str) -> Any:
        """Return an object of the package by its public name; serves as its ``__getattr__``.

        Its module is imported here, on first use.

        Raises:
            AttributeError: The declaration does not list the name.
        """
        for table in (self.registers, self.exports):
            for module, names in table.items():
                if name in names:
                    compat.activate()  # modules of a task may need a host's repairs
                    defined_in = importlib.import_module(f'{self.package}.{module}')
                    return getattr(defined_in, name)
        raise AttributeError(f"module '{self.package}' has no attribute '{name}'")

    @property
    def names(self) -> list[str]:
        """The sorted public names of the package; its ``__all__`` and ``__dir__``."""
        public: set[str] = set()
        for table in (self.registers, self.exports):
            for names in table.values():
                public.update(names)
        return sorted(public)

    @property
    def protocol(self) -> Any:
        """``PROTOCOL`` of the package's module ``task``, or what suits most tasks.

        Either is imported here only, since it needs the task's packages.
        """
        module = f'{self.package}.task'
        if importlib.util.find_spec(module) is not None:
            return importlib.import_module(module).PROTOCOL
        default = importlib.import_module('lm4ve.tasks.base.protocol')
        return default.TaskProtocol(self)


#: Name -> the package that declares ``TASK``. :func:`register_task` adds rows.
TASKS: dict[str, str] = {}


def register_task(name: str, package: str) -> None:
    """Add a task to the table, and the names that it registers to the registries.

    Projects that use lm4ve call it in a module that the ``custom_imports`` of their
    configs name, so that every process has the row.

    Args:
        name (str): The name in its declaration.
        package (str): The importable package whose ``TASK`` declares it.

    Raises:
        UserError: Another package has this name, another module registers a name of the
            task, or a row of ``registers`` is no tuple.
    """
    known = TASKS.get(name, package)
    require(
        package == known,
        f"The package of the task '{name}' is '{known}' already, not '{package}'. Fix: choose "
        'another name for the task.',
    )
    task = importlib.import_module(package).TASK
    rows: dict[str, tuple[str, str]] = {}
    for module, names in task.registers.items():
        place = (f'{package}.{module}', task.extra)
        require(
            not isinstance(names, str),
            f"registers['{module}'] of the task '{name}' is the text '{names}'. Fix: a tuple, "
            f"('{names}',).",
        )
        rows.update(dict.fromkeys(names, place))
    for registered, place in rows.items():
        taken, _ = registry.PROVIDERS.get(registered, place)
        require(
            taken == place[0],
            f"The name '{registered}' of the task '{name}' is registered by '{taken}' already, "
            f"not by '{place[0]}'. Fix: choose another name for it.",
        )
    TASKS[name] = package
    registry.PROVIDERS.update(rows)


def get_task(name: str) -> Task:
    """Return the task of a name. Imports its declaration, nothing heavy."""
    return importlib.import_module(TASKS[name]).TASK


def all_tasks() -> list[Task]:
    """Return every task of the table, in its order."""
    return [get_task(name) for name in TASKS]


def task_of_model(model_class: Any) -> Task:
    """Return the task that a model class belongs to.

    Raises:
        UserError: It derives from no model of any task.
    """
    for task in all_tasks():
        if task.recognizes(model_class):
            return task
    titles = [task.title for task in all_tasks()]
    raise UserError(
        f'{model_class.__name__} derives from no model of a task ({listing(titles, 99)}). Fix: the '
        'tools of its own library, such as mmseg.apis.inference_model.'
    )


def task_of_config(cfg: Config) -> Task:
    """Return the task that a config's model belongs to.

    Raises:
        UserError: Its class is not registered, or derives from no model of any task.
    """
    name = cfg.model.type
    if not isinstance(name, str):
        return task_of_model(name)
    # `get` alone does not search the config's scope.
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as scoped:
        model_class = scoped.get(name)
    if model_class is None:
        raise UserError(
            f"model.type='{name}' is not registered. Fix: see custom_imports."
        )
    return task_of_model(model_class)


def require_task(cfg: Config, name: str) -> None:
    """Refuse a config of another task than a tool is for."""
    name_of_config = task_of_config(cfg).name
    require(
        name_of_config == name,
        f"The task of {cfg.model.type} is '{name_of_config}', but this tool is for '{name}'. "
        'Fix: a config of that task (lm4ve list --task).',
    )
