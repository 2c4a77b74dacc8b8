"""Draws sheets: the panels of one sample side by side, as figures, pixels and videos."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from lm4ve.analysis.samples import ATTENTION_COLORS, Sample, Section
from lm4ve.draw.figures import to_image
from lm4ve.draw.pictures import Picture, TokenMap

DPI = 100
#: The room for a panel's color bar, inches. On a sheet each panel may have one.
_BAR = 0.62
#: The gap between the frames of a strip, of which only the last one has a bar, inches.
_GAP_OF_STRIP = 0.06
#: The first column of a sheet holds the input. Beside it is room for at least so many
#: columns of panels, so that the lines above fit, and a section fills at most so many.
_FEWEST = 3
_MOST = 6
#: At most so many frames of a clip are in a strip, and how wide each is, inches.
_MOST_FRAMES = 8
_FRAME = 0.95
#: Letters of a fact or a note that fit into an inch.
_LETTERS = 13
#: Heights in inches: the gap below a row of panels, a line above a panel, a line at the
#: top of the sheet, a further line of the input's caption, and the note at the bottom.
_HEIGHT_OF_GAP = 0.1
_HEIGHT_OF_TITLE = 0.14
_HEIGHT_OF_LINE = 0.16
_HEIGHT_OF_CAPTION = 0.12
_HEIGHT_OF_NOTE = 0.7
_NOTE = (
    'To look for: do tokens that matter (the object, not its background) stand out more after the '
    "block than before it?\nThis is the paper's hypothesis. One sheet decides nothing: see many, "
    'and those of a random block.\n'
    "Colors run from a panel's smallest to its largest value; the numbers at its bar are those "
    'values, not normalized.\nPanels whose values are nearly equal share one scale; that of '
    'nearly uniform attention begins at zero.'
)


class _Bar(NamedTuple):
    """A panel's color bar: the values that it is for, and its color map."""

    tokens: TokenMap
    colors: str


class _Panel(NamedTuple):
    """A panel of a sheet.

    Attributes:
        draw (Callable): Draws it into axes.
        heading (str): In bold above the title.
        title (Sequence[str]): Lines above the panel.
        caption (str): Below it.
        bar (_Bar, optional): Beside it.
    """

    draw: Callable[[Axes], None]
    heading: str = ''
    title: Sequence[str] = ()
    caption: str = ''
    bar: _Bar | None = None

    @property
    def lines(self) -> int:
        """Lines above the panel, the heading among them."""
        if self.heading or self.title:
            return 1 + len(self.title)
        return 0


#: Rows of panels; None leaves a place empty.
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
    if not picture.is_clip:
        return _draw_rows(sample, _panel_grid(sample, 0), picture.side, _BAR, note)
    if time is not None:
        return _draw_rows(sample, _panel_grid(sample, time), picture.side, _BAR, note)
    count = min(picture.times, _MOST_FRAMES)
    times = np.linspace(0, picture.times - 1, count).round().astype(int)
    shown = np.unique(times).tolist()
    side = max(_FRAME, 6 / (len(shown) + 1))
    return _draw_rows(sample, _panel_strip(sample, shown), side, _GAP_OF_STRIP, note)


def animate(sample: Sample, note: str = '') -> np.ndarray:
    """Draw each frame of a clip as a sheet, uint8 ``[T, H, W, 3]``, H and W even.

    Color scales are those of the whole clip.
    """
    sheets = []
    for time in range(sample.picture.times):
        sheets.append(to_image(draw_sheet(sample, note, time)))
    frames = np.stack(sheets)
    # H.264 takes even sizes only.
    height = frames.shape[1] // 2 * 2
    width = frames.shape[2] // 2 * 2
    return frames[:, :height, :width]


# ---------------------------------------------------------------------------- placing
def _panel_grid(sample: Sample, time: int) -> _Rows:
    """Return the panels of a sheet: the input at the left, the sections beside it.

    A section begins a new row, and has at most :data:`_MOST` panels in each.

    Args:
        sample (Sample): The sample.
        time (int): The frame of a clip; 0 for other inputs.
    """
    picture = sample.picture
    rows: _Rows = []
    for section in sample.sections:
        for i, tokens in enumerate(section.maps):
            if i % _MOST == 0:
                rows.append([None])
            title = [tokens.title]
            if section.colors != ATTENTION_COLORS:  # its heading names the module
                title.append(tokens.module[-31:])
            panel = _Panel(
                draw=partial(
                    picture.draw_values, tokens=tokens, colors=section.colors, time=time
                ),
                heading=section.title if i == 0 else '',
                title=title,
                bar=_Bar(tokens, section.colors),
            )
            rows[-1].append(panel)
    title = []
    if picture.is_clip:
        title.append(f'frame {time + 1} of {picture.times}')
    draw = partial(picture.draw_input, time=time)
    rows[0][0] = _Panel(draw, 'Input', title, picture.caption)
    return rows


def _panel_strip(sample: Sample, times: Sequence[int]) -> _Rows:
    """Return the panels of a clip's strip: a quantity in each row, a frame in each column.

    Args:
        sample (Sample): The sample.
        times (Sequence[int]): The frames.
    """
    picture = sample.picture
    inputs: list[_Panel | None] = []
    for time in times:
        draw = partial(picture.draw_input, time=time)
        heading = '' if inputs else 'Input'
        inputs.append(_Panel(draw, heading, [f'frame {time + 1}']))
    rows = [inputs]
    for section in sample.sections:
        maps = section.maps
        if section.colors == ATTENTION_COLORS:
            # The sum stands for attention; its heads are in the sheets of single frames.
            maps = maps[:1]
        for tokens in maps:
            rows.append(_strip_row(picture, section, tokens, times))
    return rows


def _strip_row(
    picture: Picture, section: Section, tokens: TokenMap, times: Sequence[int]
) -> list[_Panel | None]:
    """Return the panels of one quantity, the first with a heading, the last with a bar."""
    heading = f'{section.title}, {tokens.title}'
    if section.colors != ATTENTION_COLORS:  # its title names the module
        heading += f' ({tokens.module})'
    panels = []
    for time in times:
        draw = partial(
            picture.draw_values, tokens=tokens, colors=section.colors, time=time
        )
        panels.append(_Panel(draw))
    panels[0] = panels[0]._replace(heading=heading)
    panels[-1] = panels[-1]._replace(bar=_Bar(tokens, section.colors))
    return list(panels)


# ---------------------------------------------------------------------------- drawing
def _draw_rows(
    sample: Sample, rows: _Rows, side: float, gap: float, note: str
) -> Figure:
    """Draw rows of panels into a figure.

    Above them are the sample's name, its facts and a note, and below them a text that
    explains the colors.

    Args:
        sample (Sample): The sample.
        rows (list): Each row's panels from the left; None leaves a place empty. A row
            may be shorter than others.
        side (float): How wide a panel is, about, in inches.
        gap (float): The room at the right of a panel, inches.
        note (str): A line below the sample's name.
    """
    columns = max(_FEWEST + 1, *[len(row) for row in rows])
    width = columns * (side + gap) + _BAR
    lines = _lines_at_top(sample, note, int(width * _LETTERS))
    height = _height_of(sample.picture, rows, side, len(lines))
    figure = Figure((width, height), DPI, facecolor='white', layout='constrained')
    style: dict[str, Any] = dict(x=0.01, ha='left', linespacing=1.4, parse_math=False)
    figure.suptitle('\n'.join(lines), fontsize=8.5, **style)
    figure.supxlabel(_NOTE, fontsize=7, **style)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axes_of_row, row in zip(axes, rows, strict=True):
        # Places after the last panel of a short row are empty, too.
        for ax, panel in zip_longest(axes_of_row, row):
            if panel is None:
                ax.remove()
            else:
                _draw_panel(ax, panel)
    return figure


def _lines_at_top(sample: Sample, note: str, letters: int) -> list[str]:
    """Return a sample's name, its facts and a note, in lines of at most so many letters."""
    facts = '   '.join(f'{name}: {value}' for name, value in sample.facts.items())
    return [sample.name, *wrap(facts, letters), *wrap(note, letters)]


def _height_of(picture: Picture, rows: _Rows, side: float, lines: int) -> float:
    """Estimate the height of a figure, in inches.

    Args:
        picture (Picture): Gives the panels' height by width, and the input's caption.
        rows (list): The rows of panels.
        side (float): How wide a panel is, inches.
        lines (int): The number of lines at the top.
    """
    height = len(rows) * (side * picture.aspect + _HEIGHT_OF_GAP)
    height += _HEIGHT_OF_TITLE * sum(_lines_above(row) for row in rows)
    further_lines = picture.caption.count('\n')
    height += (
        _HEIGHT_OF_LINE * lines + _HEIGHT_OF_CAPTION * further_lines + _HEIGHT_OF_NOTE
    )
    return height


def _lines_above(row: Sequence[_Panel | None]) -> int:
    """Return how many lines a row of panels needs above it, for headings and titles."""
    return max(panel.lines for panel in row if panel is not None)


def _draw_panel(axes: Axes, panel: _Panel) -> None:
    """Draw a panel with its heading, title, caption and color bar."""
    panel.draw(axes)
    style: dict[str, Any] = dict(linespacing=1.25, parse_math=False)
    title = '\n'.join(['', *panel.title])
    axes.set_title(title, loc='left', fontsize=7, pad=3, **style)
    # The heading may be wider than the panel, and stands above the lines of its title.
    heading = panel.heading + '\n' * len(panel.title)
    axes.text(
        0,
        1.02,
        heading,
        fontsize=7.5,
        transform=axes.transAxes,
        va='bottom',
        weight='bold',
        in_layout=False,
        **style,
    )
    axes.set_xlabel(panel.caption, loc='left', fontsize=6.5)
    if panel.bar is not None:
        _draw_bar(axes, panel.bar)


def _draw_bar(axes: Axes, bar: _Bar) -> None:
    """Draw a color bar beside a panel, with the smallest and the largest value as ticks."""
    norm = bar.tokens.norm()
    beside = axes.inset_axes((1.03, 0, 0.05, 1))
    ticks: Any = [norm.vmin, norm.vmax]
    colors = ScalarMappable(norm, bar.colors)
    axes.figure.colorbar(colors, cax=beside, ticks=ticks, format='%.3g')
    beside.tick_params(labelsize=6.5, length=2, pad=1)
