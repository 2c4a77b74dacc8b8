"""Before the first training of a grid, each of its variants is built once."""

import pytest

from lm4ve.errors import UserError
from lm4ve.study.store import Store
from lm4ve.study.trainings.grid_files import load_grid
from lm4ve.study.trainings.study import GridStudy
from lm4ve.study.trainings.trial import first_jobs, try_variants
from tests.helpers.grids.toy import GRID, write_grid


@pytest.fixture
def study_of(tmp_path):
    """``study_of(text)``: the study of a grid of this text."""

    def study_of(text: str) -> GridStudy:
        return GridStudy(
            load_grid(write_grid(tmp_path, text)), Store(tmp_path / 'jobs')
        )

    return study_of


@pytest.mark.parametrize(
    'option, defect',
    [
        ('model.wdth', 'model: TypeError: .*wdth'),
        ('model.neck.block.seed', '.*neck'),
        ('allow_new.model.widthh', 'model: TypeError: .*widthh'),
    ],
)
def test_variant_that_cannot_be_built_is_named_before_the_first_training(
    study_of, option, defect
):
    text = GRID.replace("{'model.width': 1}", f"{{'{option}': 1}}")
    assert text != GRID
    study = study_of(text)
    with pytest.raises(UserError, match=f"^variant 'one': {defect}"):
        try_variants(study)
    assert not any(study.store.result(job) for job in study.tests())


def test_hooks_that_draw_can_be_built(study_of):
    """They ask for the visualizer, which the runner of a training makes before them."""
    hook = dict(type='mmpretrain.VisualizationHook', enable=False)
    text = GRID.replace(
        "{'model.width': 1}", f"{{'allow_new.default_hooks.visualization': {hook}}}"
    )
    assert text != GRID
    try_variants(study_of(text))


def test_variants_that_can_be_built_are_built_once_each(study_of):
    study = study_of(GRID)
    names = [job.variant for job in first_jobs(study)]
    assert names == [variant.name for variant in study.grid.variants]
    try_variants(study)
