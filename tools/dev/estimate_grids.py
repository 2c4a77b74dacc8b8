"""Write the tables of docs/guides/reproduce.md: each grid with published scores, estimated.

    python tools/dev/estimate_grids.py          # ten minutes of a CPU core; no data, no GPU

Hours and memory are estimates by lm4ve.cost for one A100, of which none was measured.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from data_sizes import samples_of

from lm4ve.cost import TrainingEstimate, estimate_training
from lm4ve.runner.config import merge_options
from lm4ve.study.trainings.grid import Grid, Variant
from lm4ve.study.trainings.grid_files import load_grid
from lm4ve.study.trainings.identity import fresh_config

ROOT = Path(__file__).resolve().parents[2]
GRIDS = ROOT / 'configs/ablations'
PAGE = ROOT / 'docs/guides/reproduce.md'
START = '<!-- made by tools/dev/estimate_grids.py -->'
END = '<!-- end of it -->'


@dataclass(frozen=True)
class Row:
    """A grid with the estimates of its variants' trainings.

    Attributes:
        grid (Grid): The grid.
        estimates (list[TrainingEstimate]): One a variant, on one A100.
    """

    grid: Grid
    estimates: list[TrainingEstimate]

    def cells(self) -> list[str]:
        """Return the cells of the table's row."""
        hours = [estimate.gpu_hours for estimate in self.estimates]
        memory = [estimate.peak / 1e9 for estimate in self.estimates]
        seeds = len(self.grid.seeds)
        return [
            f'`{self.grid.name}`',
            f'{len(hours)} x {seeds}',
            _range(hours),
            f'{sum(hours) * seeds:,.0f}',
            _range(memory),
        ]


def _range(values: list[float]) -> str:
    """Return the least and the largest value."""
    return f'{min(values):.3g} to {max(values):.3g}'


def grids_with_scores() -> list[Grid]:
    """Return the grids that have published scores, by name."""
    grids = []
    for path in sorted(GRIDS.glob('*.py')):
        grid = load_grid(path)
        if grid.published is not None:
            grids.append(grid)
    return grids


def estimate(grid: Grid, variant: Variant) -> TrainingEstimate:
    """Estimate a variant's training on one A100."""
    options = grid.options(variant, 'test', grid.seeds[0], None)
    cfg = fresh_config(variant.config)
    merge_options(cfg, options)
    samples = samples_of(cfg.train_dataloader.dataset)
    return estimate_training(cfg, 'a100', samples=samples)


def write_page(table: str) -> None:
    """Put the table between the page's two marks."""
    text = PAGE.read_text(encoding='utf-8')
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f'{before}{START}\n{table}\n{END}{after}', encoding='utf-8')


def main() -> None:
    columns = [
        'grid',
        'variants x seeds',
        'A100 hours of a training',
        'A100 hours of the grid',
        'GB on each GPU',
    ]
    lines = [columns, ['---'] * len(columns)]
    for grid in grids_with_scores():
        print(grid.name, file=sys.stderr, flush=True)
        estimates = [estimate(grid, variant) for variant in grid.variants]
        lines.append(Row(grid, estimates).cells())
    write_page('\n'.join(f'| {" | ".join(line)} |' for line in lines))


if __name__ == '__main__':
    main()
