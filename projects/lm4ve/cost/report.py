"""The cost of a step as tables: on the screen, and on the page of the documentation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lm4ve.cost.counting import PARTS
from lm4ve.cost.prediction import Rates, predict_seconds
from lm4ve.cost.step import StepCost, cost_of_step
from lm4ve.runner.config import read_config

#: Config without a block -> those with one, below the folder of configs. A row each.
HEADLINES: dict[str, tuple[str, ...]] = {
    'lm4ve/vit-t_in1k.py': ('lm4ve/vit-t_llama_in1k.py',),
    'lm4ve/vit-s_in1k.py': ('lm4ve/vit-s_llama_in1k.py', 'lm4ve/vit-s_mlp_in1k.py'),
    'lm4ve/vit-b_in1k.py': ('lm4ve/vit-b_llama_in1k.py',),
    'video/videomae-s_ssv2.py': ('video/videomae-s_llama_ssv2.py',),
    'video/videomae-b_ssv2.py': ('video/videomae-b_llama_ssv2.py',),
    'pointcloud/pointbert_scanobjectnn-hardest.py': (
        'pointcloud/pointbert_llama_scanobjectnn-hardest.py',
    ),
    'pointcloud/pointbert_modelnet40-8k.py': ('pointcloud/pointbert_llama_modelnet40-8k.py',),
    'motion/vectornet_argoverse1.py': ('motion/vectornet_llama_argoverse1.py',),
    'motion/mmtransformer_argoverse1.py': ('motion/mmtransformer_llama_argoverse1.py',),
    'vision_language/meter_vqav2.py': ('vision_language/meter_llama_vqav2.py',),
    'vision_language/meter_flickr30k.py': ('vision_language/meter_llama_flickr30k.py',),
}
#: Name of the page's table; the page has it between two comments.
TABLE = 'the cost of headline configs'
#: How much faster 16-bit products were than those of fp32, where the processor has them
#: (docs/results/performance.md).
SIXTEEN_BITS = 3.8


def screen_rows(cost: StepCost) -> list[dict[str, str]]:
    """Return the multiply-accumulates of each part, as rows of a table."""
    counts = cost.counts
    rows = [
        _row(part, counts.total_macs(part, False), counts.total_macs(part, True)) for part in PARTS
    ]
    return [*rows, _row('all', counts.total_macs(None, False), counts.total_macs(None, True))]


def _row(part: str, forward: int, backward: int) -> dict[str, str]:
    found = dict(forward=forward, backward=backward, both=forward + backward)
    return {'part': part} | {f'{k} [GMAC]': f'{v / 1e9:,.2f}' for k, v in found.items()}


def screen_lines(cost: StepCost, base: StepCost | None, rates: Rates | None) -> list[str]:
    """Return what else there is to say of a step, a line each."""
    lines = [
        f'parameters: {cost.trainable:,} trainable, {cost.frozen:,} frozen',
        f'kept for the backward pass: {_by_dtype(cost.counts.saved)}',
        f'peak: {_by_dtype(cost.peak)}, weights, gradients and optimizer included',
        f'checkpoint: {cost.checkpoint / 1e6:,.0f} MB',
    ]
    if rates is not None:
        lines.append(f'predicted: {predict_seconds(cost, rates):.3g} s a step, at {rates}')
    if base is not None:
        ratio = predict_seconds(cost, rates) / predict_seconds(base, rates)
        by = 'by the rates' if rates is not None else 'by the number of operations'
        lines.append(f'step ratio to the base: {ratio:.3f}, predicted {by}')
    return lines


def _by_dtype(sizes: Mapping) -> str:
    found = [f'{v / 1e9:.2f} GB {str(k).removeprefix("torch.")}' for k, v in sizes.items() if v]
    return f'{sum(sizes.values()) / 1e9:.2f} GB ({", ".join(found)})'


class PageRow(NamedTuple):
    """A row of the page: a config, and its base if it has a block."""

    config: str
    base: str = ''


def page_rows() -> list[PageRow]:
    """Return the rows of the page, in its order."""
    return [
        row
        for base, others in HEADLINES.items()
        for row in (PageRow(base), *(PageRow(other, base) for other in others))
    ]


def page_line(configs: Path, row: PageRow, cost: StepCost, base: StepCost | None) -> str:
    """Return a row of the page as Markdown."""
    counts = cost.counts
    parts = [f'{counts.total_macs(p) / 1e9:,.1f}' for p in PARTS if p != 'rest']
    sizes = (sum(counts.saved.values()), sum(cost.peak.values()), cost.checkpoint)
    ratios = ['', '']
    if base is not None:
        fast = _operations(cost, SIXTEEN_BITS) / _operations(base, SIXTEEN_BITS)
        ratios = [f'{_operations(cost, 1) / _operations(base, 1):.2f}', f'{fast:.2f}']
    cells = [
        f'`{row.config}`',
        str(cost.batch),
        f'{cost.trainable / 1e6:,.1f}',
        f'{cost.frozen / 1e6:,.1f}',
        *parts,
        *(f'{size / 1e9:,.2f}' for size in sizes),
        *ratios,
    ]
    return f'| {" | ".join(cells)} |'


def _operations(cost: StepCost, faster: float) -> float:
    """Count the operations, those in 16 bits as so much less."""
    return sum(n / (faster if k.dtype.itemsize == 2 else 1) for k, n in cost.counts.macs.items())


def page_table(configs: Path, rows: Sequence[PageRow] | None = None) -> str:
    """Return the table of the page as Markdown; a config takes some seconds.

    Args:
        configs (Path): The folder of configs.
        rows (Sequence[PageRow], optional): Default: all.
    """
    names = 'config|batch|trainable M|frozen M'.split('|')
    names += [f'{part} GMAC' for part in PARTS if part != 'rest']
    names += 'activations GB|peak GB|checkpoint GB|ratio|ratio, 16 bits'.split('|')
    lines = [f'| {" | ".join(names)} |', f'|{"---|" * len(names)}']
    costs: dict[str, StepCost] = {}
    for row in page_rows() if rows is None else rows:
        for name in filter(None, (row.base, row.config)):
            if name not in costs:
                costs[name] = cost_of_step(read_config(configs / name))
        lines.append(page_line(configs, row, costs[row.config], costs.get(row.base)))
    return '\n'.join(lines)


def page_with_table(page: str, make: Callable[[], str]) -> str:
    """Return the page with its table made anew."""
    start, end = f'<!-- made by tools/dev/write_tables.py: {TABLE} -->', f'<!-- end of {TABLE} -->'
    before, _, rest = page.partition(start)
    _, found, after = rest.partition(end)
    return f'{before}{start}\n\n{make()}\n\n{end}{after}' if found else page
