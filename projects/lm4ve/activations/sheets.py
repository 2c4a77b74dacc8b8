"""Sheets: the panels of one sample side by side, as figures, pixels and videos.

Places are computed in inches and not by matplotlib's layout engine: rows and columns
stay aligned whatever the labels, and drawing takes a fraction of the time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lm4ve.activations.samples import Sample, Section
from lm4ve.engine.figures import to_image
from lm4ve.tasks.pictures import TokenMap

DPI = 100
#: Inches: the room of a panel's color bar, around all.
_BAR, _MARGIN = 0.62, 0.18
_HEADING, _LINE = 0.25, 0.19
#: Columns of panels beside the input's.
_FEWEST, _MOST = 3, 6
#: A strip's frame, and how many of them at most.
_FRAME, _MOST_FRAMES = 0.95, 8
_NOTE = (
    "Colours run from a panel's smallest to its largest value; the numbers at "
    'its bar are those values, not normalised.'
)


@dataclass
class _Page:
    """What is to be drawn, in inches from the upper left corner."""

    width: float
    height: float = 0.0
    items: list[tuple[float, float, float, float, Callable]] = field(default_factory=list)
    bars: list[tuple[float, float, float, str]] = field(default_factory=list)
    texts: list[tuple[float, float, str, dict]] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, **style) -> None:
        self.texts.append((x, y, text, {'fontsize': 8, 'va': 'top', **style}))

    def panel(self, x: float, y: float, width: float, height: float, draw: Callable) -> None:
        self.items.append((x, y, width, height, draw))

    def figure(self) -> Figure:
        figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor='white')
        for x, y, width, height, draw in self.items:
            box = (
                x / self.width,
                1 - (y + height) / self.height,
                width / self.width,
                height / self.height,
            )
            draw(figure.add_axes(box))
        self._draw_bars(figure)
        for x, y, text, style in self.texts:
            figure.text(x / self.width, 1 - y / self.height, text, parse_math=False, **style)
        return figure

    def _draw_bars(self, figure: Figure) -> None:
        """All colour bars in one set of axes: one for each takes long to draw."""
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        ramp = np.linspace(1, 0, 128)[:, None]
        for x, y, height, colors in self.bars:
            axes.imshow(ramp, cmap=colors, aspect='auto', extent=(x, x + 0.08, y + height, y))
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))


def draw_sheet(sample: Sample, note: str = '', time: int | None = None) -> Figure:
    """Draw a sample.

    Args:
        sample (Sample): What.
        note (str): A line below its name, for example the checkpoint.
        time (int, optional): This frame of a clip as a sheet of panels; None: a
            clip as a strip, a row a quantity and a column a frame.

    Returns:
        Figure: Of matplotlib, without a window or pyplot's state.
    """
    if sample.picture.is_clip and time is None:
        return _strip(sample, note).figure()
    return _grid(sample, note, time or 0).figure()


def animate(sample: Sample, note: str = '') -> np.ndarray:
    """Draw each frame of a clip as a sheet, uint8 ``[T, H, W, 3]``, H and W even.

    Colour scales are those of the whole clip.
    """
    frames = np.stack([to_image(draw_sheet(sample, note, t)) for t in range(sample.picture.times)])
    # H.264 takes even sizes only.
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]


def save_gif(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write frames ``[T, H, W, 3]`` as a GIF that repeats for ever."""
    from PIL import Image

    # One palette for all frames, so that colours do not flicker; of the colours and
    # not of the pixels, most of which are white.
    packed = np.unique(frames.astype(np.int32) @ [65536, 256, 1])
    colors = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1)
    chosen = Image.fromarray(colors[None].astype(np.uint8)).quantize(254, kmeans=4)
    palette = Image.new('P', (1, 1))
    palette.putpalette((chosen.getpalette() + 762 * [0])[:762] + 3 * [0] + 3 * [255])
    pictures = [
        Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames
    ]
    pictures[0].save(
        path,
        save_all=True,
        append_images=pictures[1:],
        loop=0,
        duration=round(1000 / fps),
        optimize=True,
    )


# ---------------------------------------------------------------------- one frame
def _grid(sample: Sample, note: str, time: int) -> _Page:
    """Input and facts in the first column, sections beside and below them."""
    widest = max(len(s.maps) for s in sample.sections)
    columns = min(max(widest, _FEWEST), _MOST)
    side = sample.picture.side
    pitch, height = side + _BAR, side * sample.picture.aspect
    page = _Page(2 * _MARGIN + (columns + 1) * pitch - 0.1)
    y = _header(page, sample, note)
    page.text(
        _MARGIN,
        y,
        'Input'
        if not sample.picture.is_clip
        else f'Input, frame {time + 1} of {sample.picture.times}',
        fontsize=9,
        weight='bold',
    )
    page.panel(
        _MARGIN,
        y + _HEADING + _title_room(sample.sections[0]),
        side,
        height,
        lambda axes: sample.picture.draw_input(axes, time),
    )
    page.text(
        _MARGIN,
        y + _HEADING + _title_room(sample.sections[0]) + height + 0.05,
        sample.picture.caption,
        fontsize=6.5,
        color='.35',
    )
    for section in sample.sections:
        page.text(_MARGIN + pitch, y, section.title, fontsize=9, weight='bold')
        y += _HEADING
        room = _title_room(section)
        for i, tokens in enumerate(section.maps):
            if i and i % columns == 0:
                y += room + height + 0.12
            x = _MARGIN + (1 + i % columns) * pitch
            _titled(page, section, tokens, x, y)
            _valued(page, sample, section.colors, tokens, time, x, y + room, side, height)
        y += room + height + 0.2
    page.text(_MARGIN, y, _NOTE, fontsize=7, color='.35')
    page.height = y + _LINE + _MARGIN
    return page


def _title_room(section: Section) -> float:
    """Inches above a panel: two lines, or one where the section names the module."""
    return 0.2 if section.is_attention else 0.34


def _titled(page: _Page, section: Section, tokens: TokenMap, x: float, y: float) -> None:
    page.text(x, y, tokens.title, fontsize=8)
    if not section.is_attention:
        page.text(
            x,
            y + 0.155,
            shortened(tokens.module, 31),
            fontsize=6.5,
            color='.35',
            family='monospace',
        )


def _valued(
    page: _Page,
    sample: Sample,
    colors: str,
    tokens: TokenMap,
    time: int,
    x: float,
    y: float,
    width: float,
    height: float,
) -> None:
    """A panel and its colour bar."""
    page.panel(
        x, y, width, height, lambda axes: sample.picture.draw_values(axes, tokens, colors, time)
    )
    _bar(page, colors, tokens, x + width + 0.05, y, height)


def _bar(page: _Page, colors: str, tokens: TokenMap, x: float, y: float, height: float) -> None:
    norm = tokens.norm()
    page.bars.append((x, y, height, colors))
    ticks = [(0.0, norm.vmax, 'top'), (1.0, norm.vmin, 'bottom')]
    if height > 1.2:
        ticks.insert(1, (0.5, (norm.vmin + norm.vmax) / 2, 'center'))
    for share, value, side in ticks:
        page.text(x + 0.1, y + share * height, number(value), fontsize=6.5, va=side)


# ----------------------------------------------------------------------- a strip
def _strip(sample: Sample, note: str) -> _Page:
    """A row a quantity, a column a frame."""
    times = sample.picture.times
    shown = np.unique(np.linspace(0, times - 1, min(times, _MOST_FRAMES)).round().astype(int))
    height, gap = _FRAME * sample.picture.aspect, 0.06
    across = len(shown) * (_FRAME + gap)
    # Room for the header where there are few frames.
    page = _Page(max(2 * _MARGIN + across + _BAR, 6.0))
    y = _header(page, sample, note)

    def row(y: float, draw: Callable) -> None:
        for column, time in enumerate(shown):
            page.panel(
                _MARGIN + column * (_FRAME + gap),
                y,
                _FRAME,
                height,
                lambda axes, time=time: draw(axes, int(time)),
            )

    page.text(_MARGIN, y, 'Input', fontsize=8, weight='bold')
    for column, time in enumerate(shown):
        page.text(
            _MARGIN + column * (_FRAME + gap) + _FRAME / 2,
            y + 0.02,
            '' if column == 0 else f'frame {time + 1}',
            fontsize=6.5,
            ha='center',
            color='.35',
        )
    y += 0.2
    row(y, sample.picture.draw_input)
    y += height + 0.12
    for section in sample.sections:
        # Of attention the sum: heads are in the sheets of single frames.
        for tokens in section.maps[:1] if section.is_attention else section.maps:
            page.text(_MARGIN, y, _row_title(section, tokens), fontsize=7)
            y += 0.17
            row(
                y,
                lambda axes, time, s=section, t=tokens: sample.picture.draw_values(
                    axes, t, s.colors, time
                ),
            )
            _bar(page, section.colors, tokens, _MARGIN + across, y, height)
            y += height + 0.09
        y += 0.06
    page.text(_MARGIN, y, _NOTE.replace('panel', 'row'), fontsize=7, color='.35')
    page.height = y + _LINE + _MARGIN
    return page


def _row_title(section: Section, tokens: TokenMap) -> str:
    if section.is_attention:
        return f'{section.title}, {tokens.title}'
    return f'{section.title}, {tokens.title} ({tokens.module})'


# ------------------------------------------------------------------------- words
def _header(page: _Page, sample: Sample, note: str) -> float:
    """Name, facts and note; returns where the panels may begin."""
    y = _MARGIN
    letters = int(page.width * 15)
    page.text(_MARGIN, y, shortened(sample.name, int(letters * 0.8)), fontsize=11, weight='bold')
    y += 0.26
    lines = ['   '.join(f'{k}: {v}' for k, v in sample.facts.items())]
    for line in [*filter(None, lines), *filter(None, note.split('\n'))]:
        page.text(_MARGIN, y, shortened(line, letters), fontsize=8, color='.2')
        y += _LINE
    return y + 0.12


def shortened(text: str, letters: int) -> str:
    """Cut the middle out of a text that is too long."""
    if len(text) <= letters:
        return text
    half = (letters - 1) // 2
    return f'{text[: letters - 1 - half]}…{text[-half:]}'


def number(value: float) -> str:
    """Three significant digits, as short as it can be read."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f'{value:.3g}'
    return f'{value:.1e}'.replace('e-0', 'e-').replace('e+0', 'e')
