"""The declaration of a task, the one interface between its folder and the rest of the suite.

Registries, commands and the activation analysis go through it. To add a task, write a folder like
those beside this one and name it in the table of :mod:`lm4ve.tasks`.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """One task of the suite. Declaring it imports nothing of the task.

    Attributes:
        name (str): Its short name, which its config folder has too.
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
        inferencer (str): Full name of the class that applies the task's models to a user's
            inputs, for :mod:`lm4ve.apis`. Defaults to the readers and plots of ``analysis.py``.
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
        """Return a public name of the package; serves as its ``__getattr__``."""
        for module, names in [*self.registers.items(), *self.exports.items()]:
            if name in names:
                found = importlib.import_module(f'{self.package}.{module}')
                return getattr(found, name)
        raise AttributeError(f"module '{self.package}' has no attribute '{name}'")

    @property
    def analysis(self) -> Any:
        """The ``ANALYSIS`` of the package's module ``analysis``, or plain grids of tokens."""
        return self._duties('analysis')

    @property
    def export(self) -> Any:
        """The ``EXPORT`` of the package's module ``export``, or what suits most models."""
        return self._duties('export')

    @property
    def batches(self) -> Any:
        """The ``BATCHES`` of the package's module ``batches``, or one that raises."""
        return self._duties('batches')

    def _duties(self, module: str) -> Any:
        """Return the object of a module of the package, imported on demand.

        Where the package has no such module, its defaults in ``lm4ve.tasks.base`` serve.
        """
        if importlib.util.find_spec(f'{self.package}.{module}') is not None:
            return getattr(importlib.import_module(f'{self.package}.{module}'), module.upper())
        base = importlib.import_module(f'lm4ve.tasks.base.{module}')
        return getattr(base, f'Task{module.capitalize()}')(self)

    @property
    def public_names(self) -> list[str]:
        """All names that :meth:`attribute` returns, sorted."""
        tables = [*self.registers.values(), *self.exports.values()]
        return sorted(name for names in tables for name in names)
