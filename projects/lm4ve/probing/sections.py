"""The sections of a report: one for each language model, and for each number of shots.

A section answers one question: does this block help? Of several layers it is about the
one with the best accuracy in tuning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lm4ve.probing.heads import HeadSpec
from lm4ve.probing.sentence import (
    Subject,
    answer,
    conclude,
    name_block,
    name_data,
    short_name,
    words_of_shots,
)
from lm4ve.probing.study import Study, StudyResults
from lm4ve.probing.verdict import Comparison


@dataclass(frozen=True)
class Section:
    """What a report says about one block.

    Attributes:
        title (str): Encoder, data and block.
        block (str): The name of the block's head.
        shots (int): Pictures of each class that its heads train on; 0: all.
        reference (str): The head whose mistakes are shown beside the block's: the
            linear probe, or the first that the block was compared with.
        names (list[str]): The heads in its table, in the order of rows.
        comparisons (list[Comparison]): Those of the block.
        answer (str): Whether the block helps, in a sentence.
        details (str): All comparisons in a sentence.
    """

    title: str
    block: str
    shots: int
    reference: str
    names: list[str]
    comparisons: list[Comparison]
    answer: str
    details: str


def list_sections(
    study: Study, results: StudyResults, comparisons: Sequence[Comparison]
) -> list[Section]:
    """Return the sections of a study's report, in the order of its blocks.

    Args:
        study (Study): The study.
        results (StudyResults): Its results.
        comparisons (Sequence[Comparison]): All comparisons of all blocks.
    """
    blocks_of: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for name in study.blocks:
        head = study.heads[name]
        blocks_of.setdefault((head.shots, head.models), []).append(name)
    sections = []
    for blocks in blocks_of.values():
        best = max(blocks, key=results.tuned_accuracy)
        own = [comparison for comparison in comparisons if comparison.block == best]
        if own:  # of two models, the first may be all that there is to compare with
            sections.append(_make_section(study, results, best, own))
    return sections


def section_with_most_pictures(sections: Sequence[Section]) -> Section:
    """Return the first of the sections whose heads train on the most pictures."""
    for section in sections:
        if section.shots == 0:
            return section
    return max(sections, key=lambda section: section.shots)


def _make_section(
    study: Study,
    results: StudyResults,
    block: str,
    comparisons: list[Comparison],
) -> Section:
    """Return the section about one block.

    Args:
        study (Study): The study.
        results (StudyResults): Its results.
        block (str): The name of the block's head.
        comparisons (list[Comparison]): Those of the block.
    """
    features = study.features
    margin = study.settings.margin
    shots = study.heads[block].shots
    model = set(study.heads[block].models)
    compared = {comparison.against for comparison in comparisons}
    names = []
    for name, head in study.heads.items():
        is_of_model = not head.models or model <= set(head.models)
        if head.shots == shots and (is_of_model or name in compared):
            names.append(name)
    encoder = short_name(features.encoder)
    data = name_data(features.data.name, features.encoder)
    if shots:
        data += f' with {words_of_shots(shots)}'
    subject = Subject(
        block=name_block(study.heads[block]),
        encoder=encoder,
        data=data,
        seeds={name: len(results.accuracies[name]) for name in names},
        test_pictures=len(features.data.splits['test']),
        accuracies={name: float(results.accuracies[name].mean()) for name in names},
    )
    return Section(
        title=f'{encoder} on {data}: {subject.block}',
        block=block,
        shots=shots,
        reference=_choose_reference(comparisons, study.heads),
        names=names,
        comparisons=comparisons,
        answer=answer(comparisons, study.heads, subject, margin),
        details=conclude(comparisons, study.heads, margin),
    )


def _choose_reference(
    comparisons: Sequence[Comparison], heads: Mapping[str, HeadSpec]
) -> str:
    """Return the linear probe that the block is compared with; without one, the first head."""
    for comparison in comparisons:
        if heads[comparison.against].family == 'linear':
            return comparison.against
    return comparisons[0].against
