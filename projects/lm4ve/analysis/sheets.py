"""Sheets: the panels of one sample side by side, as figures, pixels and videos.

Places are computed in inches and not by matplotlib's layout engine: rows and columns
stay aligned whatever the labels, and drawing takes a fraction of the time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lm4ve.analysis.points import meanings
from lm4ve.analysis.samples import Sample, Section
from lm4ve.tasks.base.pictures import TokenMap, to_image

DPI = 100
#: Inches: the room of a panel's color bar, and the margin around the page.
_BAR, _MARGIN = 0.62, 0.18
_HEADING, _LINE = 0.25, 0.19
#: Columns of panels beside the input's.
_FEWEST, _MOST = 3, 6
#: A strip's frame, and how many of them at most.
_FRAME, _MOST_FRAMES = 0.95, 8
#: Module names, frame numbers and captions.
_SMALL = dict(fontsize=6.5, color='.35')
_NOTE = (
    "Colors run from a panel's smallest to its largest value; the numbers at its bar are those "
    'values, not normalized.\nPanels whose values are nearly equal share one scale.'
)


@dataclass
class _Page:
    """The panels, color bars and texts of a sheet, in inches from the upper left corner."""

    width: float
    height: float = 0.0
    items: list[tuple[float, float, float, float, Callable]] = field(default_factory=list)
    bars: list[tuple[float, float, float, str]] = field(default_factory=list)
    texts: list[tuple[float, float, str, dict]] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, **style) -> None:
        self.texts.append((x, y, text, {'fontsize': 8, 'va': 'top', **style}))

    def panel(self, x: float, y: float, width: float, height: float, draw: Callable) -> None:
        self.items.append((x, y, width, height, draw))

    def bar(self, x: float, y: float, height: float, colors: str, tokens: TokenMap) -> None:
        """Place the color bar of a panel, with the numbers at its ends."""
        self.bars.append((x, y, height, colors))
        norm = tokens.norm()
        ticks = [(0.0, norm.vmax, 'top'), (1.0, norm.vmin, 'bottom')]
        if height > 1.2:
            ticks.append((0.5, (norm.vmin + norm.vmax) / 2, 'center'))
        for share, value, side in ticks:
            self.text(x + 0.1, y + share * height, number(value), fontsize=6.5, va=side)

    def ended(self, y: float, note: str) -> '_Page':
        """Return the page with its last lines from ``y`` on."""
        for line in note.split('\n'):
            self.text(_MARGIN, y, line, fontsize=7, color='.35')
            y += _LINE
        self.height = y + _MARGIN
        return self

    def figure(self) -> Figure:
        figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor='white')
        for x, y, width, height, draw in self.items:
            left, bottom = x / self.width, 1 - (y + height) / self.height
            draw(figure.add_axes((left, bottom, width / self.width, height / self.height)))
        self._draw_bars(figure)
        for x, y, text, style in self.texts:
            figure.text(x / self.width, 1 - y / self.height, text, parse_math=False, **style)
        return figure

    def _draw_bars(self, figure: Figure) -> None:
        """Draw all color bars in one set of axes: one for each takes long to draw."""
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        ramp = np.linspace(1, 0, 128)[:, None]
        for x, y, height, colors in self.bars:
            axes.imshow(ramp, cmap=colors, aspect='auto', extent=(x, x + 0.08, y + height, y))
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))


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
    if sample.picture.is_clip and time is None:
        return _strip(sample, note).figure()
    return _grid(sample, note, time or 0).figure()


def animate(sample: Sample, note: str = '') -> np.ndarray:
    """Draw each frame of a clip as a sheet, uint8 ``[T, H, W, 3]``, H and W even.

    Color scales are those of the whole clip.
    """
    frames = np.stack([to_image(draw_sheet(sample, note, t)) for t in range(sample.picture.times)])
    # H.264 takes even sizes only.
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]


def save_gif(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write frames ``[T, H, W, 3]`` as a GIF that repeats for ever."""
    # One palette for all frames, so that colors do not flicker; it is made of the colors
    # and not of the pixels, most of which are white.
    packed = np.unique(frames.astype(np.int32) @ [65536, 256, 1])
    colors = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1)
    chosen = Image.fromarray(colors[None].astype(np.uint8)).quantize(254, kmeans=4)
    palette = Image.new('P', (1, 1))
    palette.putpalette((chosen.getpalette() + 762 * [0])[:762] + 3 * [0] + 3 * [255])
    plain = dict(palette=palette, dither=Image.Dither.NONE)
    first, *others = [Image.fromarray(f).quantize(**plain) for f in frames]
    duration = round(1000 / fps)
    first.save(path, save_all=True, append_images=others, loop=0, duration=duration, optimize=True)


# ---------------------------------------------------------------------- one frame
def _grid(sample: Sample, note: str, time: int) -> _Page:
    """Place the input in the first column, the sections beside and below it."""
    picture = sample.picture
    widest = max(len(s.maps) for s in sample.sections)
    columns = min(max(widest, _FEWEST), _MOST)
    side, height, pitch = picture.side, picture.side * picture.aspect, picture.side + _BAR
    page = _Page(2 * _MARGIN + (columns + 1) * pitch - 0.1)
    y = _header(page, sample, note)
    title = f'Input, frame {time + 1} of {picture.times}' if picture.is_clip else 'Input'
    page.text(_MARGIN, y, title, fontsize=9, weight='bold')
    top = y + _HEADING + _title_room(sample.sections[0])
    page.panel(_MARGIN, top, side, height, partial(picture.draw_input, time=time))
    page.text(_MARGIN, top + height + 0.05, picture.caption, **_SMALL)
    below = top + height + 0.2 + 0.11 * len(picture.caption.splitlines())
    for section in sample.sections:
        page.text(_MARGIN + pitch, y, section.title, fontsize=9, weight='bold')
        y += _HEADING
        room = _title_room(section)
        for i, tokens in enumerate(section.maps):
            if i and i % columns == 0:
                y += room + height + 0.12
            x = _MARGIN + (1 + i % columns) * pitch
            page.text(x, y, tokens.title)
            if not section.is_attention:
                module = shortened(tokens.module, 31)
                page.text(x, y + 0.155, module, family='monospace', **_SMALL)
            draw = partial(picture.draw_values, tokens=tokens, colors=section.colors, time=time)
            page.panel(x, y + room, side, height, draw)
            page.bar(x + side + 0.05, y + room, height, section.colors, tokens)
        y += room + height + 0.2
    return page.ended(max(y, below), _explained(sample, _NOTE))


def _title_room(section: Section) -> float:
    """Return the inches above a panel: two lines, or one where the section names the module."""
    return 0.2 if section.is_attention else 0.34


# ----------------------------------------------------------------------- a strip
def _strip(sample: Sample, note: str) -> _Page:
    """Place a quantity in each row, a frame in each column."""
    picture, gap = sample.picture, 0.06
    count = min(picture.times, _MOST_FRAMES)
    shown = np.unique(np.linspace(0, picture.times - 1, count).round().astype(int))
    height, across = _FRAME * picture.aspect, len(shown) * (_FRAME + gap)
    places = [(_MARGIN + i * (_FRAME + gap), int(time)) for i, time in enumerate(shown)]
    # Room for the header where there are few frames.
    page = _Page(max(2 * _MARGIN + across + _BAR, 6.0))
    y = _header(page, sample, note)

    def row(y: float, draw: Callable) -> None:
        for x, time in places:
            page.panel(x, y, _FRAME, height, partial(draw, time=time))

    page.text(_MARGIN, y, 'Input', weight='bold')
    for x, time in places[1:]:
        page.text(x + _FRAME / 2, y + 0.02, f'frame {time + 1}', ha='center', **_SMALL)
    y += 0.2
    row(y, picture.draw_input)
    y += height + 0.12
    for section in sample.sections:
        # The sum stands for attention; its heads are in the sheets of single frames.
        for tokens in section.maps[:1] if section.is_attention else section.maps:
            module = '' if section.is_attention else f' ({tokens.module})'
            page.text(_MARGIN, y, f'{section.title}, {tokens.title}{module}', fontsize=7)
            y += 0.17
            row(y, partial(picture.draw_values, tokens=tokens, colors=section.colors))
            page.bar(_MARGIN + across, y, height, section.colors, tokens)
            y += height + 0.09
        y += 0.06
    note = _NOTE.replace('panel', 'row').replace('Panel', 'Row')
    return page.ended(y, _explained(sample, note))


# ------------------------------------------------------------------------- words
def _header(page: _Page, sample: Sample, note: str) -> float:
    """Place name, facts and note; return where the panels may begin."""
    y = _MARGIN
    letters = int(page.width * 15)
    page.text(_MARGIN, y, shortened(sample.name, int(letters * 0.8)), fontsize=11, weight='bold')
    y += 0.26
    facts = '   '.join(f'{k}: {v}' for k, v in sample.facts.items())
    for line in filter(None, [facts, *note.split('\n')]):
        page.text(_MARGIN, y, shortened(line, letters), fontsize=8, color='.2')
        y += _LINE
    return y + 0.12


def heading_rows(sample: Sample, note: str) -> int:
    """Return how many rows of pixels a sheet's name, facts and note take.

    A page that says them itself leaves these rows out.
    """
    return round((_header(_Page(99.0), sample, note) - 0.1) * DPI)


def _explained(sample: Sample, note: str) -> str:
    """Put what the points' labels mean before a sheet's last lines."""
    maps = (m for s in sample.sections if not s.is_attention for m in s.maps)
    found = meanings({m.title: m.module for m in maps})
    return '\n'.join([*(f'{label}: {text}' for label, text in found.items()), note])


def shortened(text: str, letters: int) -> str:
    """Cut the middle out of a text that is too long."""
    if len(text) <= letters:
        return text
    half = (letters - 1) // 2
    return f'{text[: letters - 1 - half]}…{text[-half:]}'


def number(value: float) -> str:
    """Return three significant digits, as short as they can be read."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f'{value:.3g}'
    return f'{value:.1e}'.replace('e-0', 'e-').replace('e+0', 'e')
