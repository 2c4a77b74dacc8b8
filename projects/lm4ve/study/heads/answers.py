"""What a report says about the block of a study: the answer, and what it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lm4ve.study.compare import Comparison
from lm4ve.study.heads.head import HeadSpec
from lm4ve.study.heads.sentence import (
    Subject,
    answer,
    conclude,
    name_block,
    name_data,
    short_name,
    words_of_shots,
)
from lm4ve.study.heads.stored import StoredStudy
from lm4ve.study.heads.study import StudyResults


@dataclass(frozen=True)
class Answer:
    """What a report says about the block.

    Attributes:
        title (str): Encoder, data and block.
        reference (str): The head whose mistakes are shown beside the block's: the
            linear probe, or the first that the block was compared with.
        comparisons (list[Comparison]): Those of the block.
        sentence (str): Whether the block helps.
        details (str): All comparisons in a sentence.
    """

    title: str
    reference: str
    comparisons: list[Comparison]
    sentence: str
    details: str


def make_answer(
    study: StoredStudy, results: StudyResults, comparisons: list[Comparison]
) -> Answer:
    """Return what a report says about the block of a study.

    Args:
        study (StoredStudy): The study.
        results (StudyResults): Its results.
        comparisons (list[Comparison]): All comparisons of the block.
    """
    features = study.features
    settings = study.settings
    encoder = short_name(features.encoder)
    data = name_data(features.data.name, features.encoder)
    if settings.shots:
        data += f' with {words_of_shots(settings.shots)}'
    subject = Subject(
        block=name_block(study.heads[study.block]),
        encoder=encoder,
        data=data,
        accuracies={
            name: float(own.mean()) for name, own in results.accuracies.items()
        },
        shots=settings.shots,
    )
    margin = settings.margin
    return Answer(
        title=f'{encoder} on {data}: {subject.block}',
        reference=_choose_reference(comparisons, study.heads),
        comparisons=comparisons,
        sentence=answer(comparisons, study.heads, subject, margin),
        details=conclude(comparisons, study.heads, subject, margin),
    )


def _choose_reference(
    comparisons: Sequence[Comparison], heads: Mapping[str, HeadSpec]
) -> str:
    """Return the linear probe that the block is compared with; without one, the first head."""
    for comparison in comparisons:
        if heads[comparison.against].family == 'linear':
            return comparison.against
    return comparisons[0].against
