"""What a task tells the suite about itself, so that nothing else has to know it.

Everything outside of a task's folder (the registries, the command line tools, the
activation analysis) asks the task. To add one, write a folder like those beside
this file and name it in the table of :mod:`lm4ve.tasks`.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lm4ve.tasks.base.analysis import TaskAnalysis
    from lm4ve.tasks.base.batches import TaskBatches
    from lm4ve.tasks.base.export import TaskExport


@dataclass(frozen=True)
class Task:
    """One task of the suite. Declaring it imports nothing of the task.

    Attributes:
        name (str): Its short name, which its config folder has too.
        title (str): What it is called in messages, for example 'motion
            forecasting'.
        package (str): The Python package, ``__name__`` of its ``__init__.py``.
        extra (str): The extra of this distribution that installs what it needs.
        models (tuple[str, ...]): Full names of the classes that its models derive
            from; a config or a model belongs to the task if one of them is among
            the bases of its class.
        registers (Mapping[str, tuple[str, ...]]): Module below the package to the
            names that it registers, for example
            ``{'datasets': ('DigitsDataset', )}``.
        exports (Mapping[str, tuple[str, ...]]): Module to further public names of the
            package, beside the registered ones.
        input_noun (str): What the model takes, for example 'an image'.
        input_suffixes (tuple[str, ...]): Endings of the files that hold it.
        takes_folders (bool): A folder may stand for one input.
        tta_model (str): Type of the model that averages the predictions for an input
            and its mirror image, which ``tools/test.py --tta`` uses by default; empty
            where a mirror image may be of another class.
        inferencer (str): Full name of the class that runs the task's models on somebody's
            inputs, for :mod:`lm4ve.apis`. By default files are read, drawn and told of by
            the task's analysis.
        input_options (Mapping[str, str]): Name to help text of options that reading a
            file may need; ``visualize_activations.py`` makes a flag of each.
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
    inferencer: str = 'lm4ve.tasks.base.inferencer.FileInferencer'
    input_options: Mapping[str, str] = field(default_factory=dict)
    exports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def recognizes(self, model_class: Any) -> bool:
        """Return whether a class is a model of this task."""
        bases = getattr(model_class, '__mro__', ())
        return any(f'{c.__module__}.{c.__qualname__}' in self.models for c in bases)

    def attribute(self, name: str) -> Any:
        """Return a public name of the package, importing its module on demand.

        To be a package's ``__getattr__``.
        """
        for module, names in [*self.registers.items(), *self.exports.items()]:
            if name in names:
                found = importlib.import_module(f'{self.package}.{module}')
                return getattr(found, name)
        raise AttributeError(f"module '{self.package}' has no attribute '{name}'")

    @property
    def analysis(self) -> 'TaskAnalysis':
        """The ``ANALYSIS`` of the package's module ``analysis``, imported on demand."""
        return importlib.import_module(f'{self.package}.analysis').ANALYSIS

    @property
    def export(self) -> 'TaskExport':
        """The ``EXPORT`` of the package's module ``export``, or what suits most models."""
        from lm4ve.tasks.base.export import TaskExport

        return self._own('export', TaskExport)

    @property
    def batches(self) -> 'TaskBatches':
        """The ``BATCHES`` of the package's module ``batches``, or one that refuses by name."""
        from lm4ve.tasks.base.batches import TaskBatches

        return self._own('batches', TaskBatches)

    def _own(self, module: str, default: Any) -> Any:
        """Return the object of the package's module, named as it is; else a default one."""
        name = f'{self.package}.{module}'
        if importlib.util.find_spec(name) is None:
            return default(self)
        return getattr(importlib.import_module(name), module.upper())

    @property
    def public_names(self) -> list[str]:
        """All names that :meth:`attribute` knows, sorted."""
        tables = [*self.registers.values(), *self.exports.values()]
        return sorted(name for names in tables for name in names)
