"""Draws sheets: the panels of one sample side by side, as figures, pixels and videos.

:func:`write_page` puts all sheets and numbers of a run into one HTML file that can be
sent: pictures are embedded and nothing is fetched, neither scripts nor style sheets nor
fonts.
"""

import base64
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from lm4ve.analysis.samples import ATTENTION_COLORS, Sample
from lm4ve.draw.figures import to_image
from lm4ve.draw.pictures import TokenMap
from lm4ve.files import write_text

DPI = 100
#: The room for a panel's color bar, inches.
_BAR = 0.62
#: Columns of panels beside the input's, and frames of a strip and their width in
#: inches.
_FEWEST, _MOST, _MOST_FRAMES, _FRAME = 3, 6, 8, 0.95
_NOTE = (
    "Colors run from a panel's smallest to its largest value; the numbers at its bar are those "
    'values, not normalized.\nPanels whose values are nearly equal share one scale; that of '
    'nearly uniform attention begins at zero.'
)


class _Panel(NamedTuple):
    """A panel: what draws it, heading and title, caption, and the bar's values and colors."""

    draw: Callable[[Axes], None]
    lines: Sequence[str] = ()
    caption: str = ''
    bar: tuple[TokenMap, str] | None = None


_Rows = list[list[_Panel | None]]


def draw_sheet(sample: Sample, note: str = '', time: int | None = None) -> Figure:
    """Draw a sample's sheet.

    Args:
        sample (Sample): The sample.
        note (str): A line below its name, for example the checkpoint.
        time (int, optional): Draw this frame of a clip as a sheet of panels. None
            draws a clip as a strip, a quantity in each row and a frame in each column.

    Returns:
        Figure: It has no window, and leaves pyplot's state alone.
    """
    picture = sample.picture
    if not picture.is_clip or time is not None:
        return _draw(sample, _grid(sample, time or 0), picture.side, note)
    count = min(picture.times, _MOST_FRAMES)
    times = np.unique(
        np.linspace(0, picture.times - 1, count).round().astype(int)
    ).tolist()
    return _draw(sample, _strip(sample, times), max(_FRAME, 6 / (len(times) + 1)), note)


def animate(sample: Sample, note: str = '') -> np.ndarray:
    """Draw each frame of a clip as a sheet, uint8 ``[T, H, W, 3]``, H and W even.

    Color scales are those of the whole clip.
    """
    frames = np.stack(
        [to_image(draw_sheet(sample, note, t)) for t in range(sample.picture.times)]
    )
    # H.264 takes even sizes only.
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]


def _grid(sample: Sample, time: int) -> _Rows:
    """Place the input in the first column, the sections beside and below it."""
    picture = sample.picture
    rows: _Rows = []
    for section in sample.sections:
        for i, tokens in enumerate(section.maps):
            if i % _MOST == 0:
                rows.append([None])
            draw = partial(
                picture.draw_values, tokens=tokens, colors=section.colors, time=time
            )
            lines = ['' if i else section.title, tokens.title]
            if section.colors != ATTENTION_COLORS:  # its heading names the module
                lines.append(tokens.module[-31:])
            rows[-1].append(_Panel(draw, lines, bar=(tokens, section.colors)))
    frame = [f'frame {time + 1} of {picture.times}'] if picture.is_clip else []
    draw = partial(picture.draw_input, time=time)
    rows[0][0] = _Panel(draw, ['Input', *frame], picture.caption)
    return rows


def _strip(sample: Sample, times: Sequence[int]) -> _Rows:
    """Place a quantity in each row, a frame in each column."""
    picture, headings = sample.picture, ['Input', *[''] * (len(times) - 1)]
    rows: _Rows = [[
        _Panel(partial(picture.draw_input, time=t), [heading, f'frame {t + 1}'])
        for t, heading in zip(times, headings, strict=True)
    ]]  # fmt: skip
    for section in sample.sections:
        is_attention = section.colors == ATTENTION_COLORS
        # The sum stands for attention; its heads are in the sheets of single frames.
        for tokens in section.maps[:1] if is_attention else section.maps:
            module = '' if is_attention else f' ({tokens.module})'
            draw = partial(picture.draw_values, tokens=tokens, colors=section.colors)
            row = [_Panel(partial(draw, time=t)) for t in times]
            row[0] = row[0]._replace(lines=[f'{section.title}, {tokens.title}{module}'])
            row[-1] = row[-1]._replace(bar=(tokens, section.colors))
            rows.append([*row])
    return rows


def _draw(sample: Sample, rows: _Rows, side: float, note: str) -> Figure:
    """Draw rows of panels about ``side`` inches wide between name, facts and notes."""
    columns = max(_FEWEST + 1, *map(len, rows))
    width = columns * (side + (_BAR if side == sample.picture.side else 0.06)) + _BAR
    facts = '   '.join(f'{k}: {v}' for k, v in sample.facts.items())
    lines = [sample.name, *wrap(facts, int(width * 13)), *wrap(note, int(width * 13))]
    titles = [max(len(p.lines) for p in row if p is not None) for row in rows]
    height = len(rows) * (side * sample.picture.aspect + 0.1) + 0.14 * sum(titles)
    height += 0.16 * len(lines) + 0.12 * sample.picture.caption.count('\n') + 0.45
    figure = Figure((width, height), DPI, facecolor='white', layout='constrained')
    style: dict[str, Any] = dict(x=0.01, ha='left', linespacing=1.4, parse_math=False)
    figure.suptitle('\n'.join(lines), fontsize=8.5, **style)
    figure.supxlabel(_NOTE, fontsize=7, **style)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for i, row in enumerate(rows):
        for ax, panel in zip_longest(axes[i], row):
            if panel is None:
                ax.remove()
            else:
                _draw_panel(ax, panel)
    return figure


def _draw_panel(axes: Axes, panel: _Panel) -> None:
    """Draw a panel with its heading, title, caption and color bar."""
    panel.draw(axes)
    heading, *title = panel.lines or ('',)
    style: dict[str, Any] = dict(linespacing=1.25, parse_math=False)
    axes.set_title('\n'.join(['', *title]), loc='left', fontsize=7, pad=3, **style)
    # The heading may be wider than the panel, and stands above the lines of its title.
    style |= dict(transform=axes.transAxes, va='bottom', weight='bold', in_layout=False)
    axes.text(
        0, 1.02, '\n'.join([heading, *('' for _ in title)]), fontsize=7.5, **style
    )
    axes.set_xlabel(panel.caption, loc='left', fontsize=6.5)
    if panel.bar is not None:
        tokens, colors = panel.bar
        norm = tokens.norm()
        bar = axes.inset_axes((1.03, 0, 0.05, 1))
        ticks: Any = [norm.vmin, norm.vmax]
        shown = ScalarMappable(norm, colors)
        axes.figure.colorbar(shown, cax=bar, ticks=ticks, format='%.3g')
        bar.tick_params(labelsize=6.5, length=2, pad=1)


# ------------------------------------------------------------------------------ page
class Entry(NamedTuple):
    """A sample on the page, the PNG of its sheet, and the MP4 of a clip."""

    sample: Sample
    sheet: Path
    movie: Path | None = None


def write_page(
    path: str | Path, title: str, facts: dict[str, str], entries: list[Entry]
) -> None:
    """Write a page of samples.

    Args:
        path (str | Path): The HTML file.
        title (str): Its heading.
        facts (dict[str, str]): Facts of the run: its command, its config, ...
        entries (list[Entry]): The samples. Names and facts are escaped.
    """
    template = Path(__file__).with_name('activations.html')
    render_page(template, path, title=title, facts=facts, entries=entries)


def render_page(template: Path, path: str | Path, **values: Any) -> None:
    """Write a page from a template that extends this folder's ``page.html``.

    Args:
        template (Path): Jinja escapes what it names; the filter ``base64`` embeds a
            file.
        path (str | Path): The HTML file.
        **values: What the template names.
    """
    loader = FileSystemLoader([template.parent, Path(__file__).parent])
    environment = Environment(autoescape=True, loader=loader)
    environment.filters['base64'] = lambda file: base64.b64encode(
        file.read_bytes()
    ).decode()
    write_text(environment.get_template(template.name).render(values), path)
