"""What a user asks of a study."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StudySettings:
    """Flags of ``lm4ve try`` that decide what is trained and how it is compared.

    Attributes:
        block (str): The checkpoint of a language model.
        layers (tuple[int, ...]): Its layers that are the block.
        kept_heads (list[int], optional): The query heads that the blocks keep; None: all.
        formal (dict[str, str]): Name -> weights that were pre-trained on a formal
            language.
        dtype (str): The type of all products and of the blocks' weights, 'float32' or
            'bfloat16'; 'auto': see :func:`lm4ve.study.heads.precision.choose_dtype`.
        families (list[str]): The families of heads that are compared, from
            :data:`lm4ve.study.heads.candidates.FAMILIES`.
        shots (int): Pictures of each class to train on; 0: all.
        seeds (int): How often each head is trained for the comparison.
        steps (int): Batches of each training.
        rates (list[float]): Learning rates to try; empty: those of a ladder.
        margin (float): The smallest difference that matters, in points.
    """

    block: str
    layers: tuple[int, ...]
    kept_heads: list[int] | None
    formal: dict[str, str]
    dtype: str
    families: list[str]
    shots: int
    seeds: int
    steps: int
    rates: list[float]
    margin: float
