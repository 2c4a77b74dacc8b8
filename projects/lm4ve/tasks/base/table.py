"""The table of tasks, and the task of a config or of a model."""

import importlib
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from lm4ve import registry
from lm4ve.errors import UserError
from lm4ve.tasks.base.task import Task

#: Name -> the package that declares ``TASK``. :func:`register_task` adds rows.
TASKS: dict[str, str] = {}


def register_task(name: str, package: str) -> None:
    """Add a task to the table, and the names that it registers to the registries.

    Projects that use lm4ve call it in a module that the ``custom_imports`` of their configs
    name, so that every process has the row.

    Args:
        name (str): The name in its declaration.
        package (str): The importable package whose ``TASK`` declares it.

    Raises:
        UserError: Another package has this name.
    """
    if TASKS.setdefault(name, package) != package:
        raise UserError(
            f"The task '{name}' of '{package}' cannot be added: '{TASKS[name]}' has it."
        )
    task = get_task(name)
    for module, names in task.registers.items():
        registry.provide(f'{package}.{module}', names, task.extra)


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
    bases = ', '.join(name for task in all_tasks() for name in task.models)
    raise UserError(f'{model_class} is of no task: it derives from none of {bases}.')


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
        raise UserError(f"model.type='{name}' is not registered. Fix: see custom_imports.")
    return task_of_model(model_class)


def require_task(cfg: Config, name: str) -> None:
    """Refuse a config of another task than a tool is for."""
    found, required = task_of_config(cfg), get_task(name)
    if found.name != required.name:
        raise UserError(
            f'{cfg.model.type} is of {found.title}; this tool takes configs of {required.title}.'
        )
