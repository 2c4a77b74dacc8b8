"""One job of a study: what it is for a reader, and the key that names its result.

There are two kinds: a training of a config with its test, and a head that is trained on
stored tokens. The module of a kind has two functions: ``run(spec, key, folder, launcher)``
returns a :class:`lm4ve.study.store.Result`, and ``tidy(spec, folder)`` deletes what is of
no use once that is written.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """How jobs of a kind run.

    Attributes:
        module (str): Has the function ``run``.
        own_process (bool): A process runs one job: what a training leaves behind in
            the libraries would change the next one.
        continues (bool): A job that was stopped goes on from what it has left in its folder.
    """

    module: str
    own_process: bool
    continues: bool


KINDS = {
    'training': Kind(
        'lm4ve.study.trainings.training', own_process=True, continues=True
    ),
    'head': Kind('lm4ve.study.heads.training', own_process=False, continues=False),
}


@dataclass(frozen=True)
class Job:
    """One training with one score.

    Attributes:
        kind (str): A key of :data:`KINDS`.
        variant (str): What is trained, as tables call it.
        stage (str): 'tune' while values are chosen for all seeds, 'draw' while a seed
            chooses among them, 'test' for what is compared.
        value: The tuned value: a learning rate, C or k; None without tuning.
        seed (int): The training's.
        key (str): Names the result: a hash of everything that decides it.
        spec (Mapping): Plain data with all that the kind's ``run`` needs.
        cost (float): About how much work it is, in any unit that all jobs share.
    """

    kind: str
    variant: str
    stage: str
    value: Any
    seed: int
    key: str
    spec: Mapping[str, Any]
    cost: float = 1.0

    def __str__(self) -> str:
        value = '' if self.value is None else f', {self.value}'
        return f'{self.stage} {self.variant}, seed {self.seed}{value}'


def digest(value: Any) -> str:
    """Return 24 hex digits that identify plain data."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
