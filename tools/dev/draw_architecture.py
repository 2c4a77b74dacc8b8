"""Draw the picture of docs/extend/architecture.md: the rooms, and a picture's path through a step.

python tools/dev/draw_architecture.py      # writes docs/images/architecture.svg
"""

from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / 'docs/images/architecture.svg'

#: The rooms of the package from the top to the bottom, those of a row from the upper to
#: the lower, and what a row is for.
ROOMS = [
    ('commands, apis', 'what users call'),
    ('dry_run', 'checks before a training'),
    ('cost, study, release, analysis', 'studies of any model'),
    ('tasks/<task>, tasks, tasks/base', 'data, models, metrics of a task'),
    ('convert, text, draw, demo_data', 'what several tasks share'),
    ('geometry, data', 'points and meshes; damaged files, shards'),
    ('runner', 'config, training, checkpoints'),
    ('necks', 'mapper, block, mapper, norm'),
    ('blocks', 'layers of language models'),
    ('registry, openmmlab, compat, pixels', 'scope, repairs, pixel kernels'),
    ('llm', 'files of language models'),
    ('zoo, files, errors, version', 'small things that all rooms use'),
]

BLUE = '#dbe9f6'
GREY = '#e9e9e9'
WHITE = '#ffffff'
GREEN = '#dff0d8'

#: The upper edge of the first room, and the distance to the next one's.
TOP = 50
STEP = 69
HEIGHT = TOP + STEP * len(ROOMS)

_HEAD = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1010 {HEIGHT}" \
font-family="sans-serif" font-size="14" role="img" aria-label="Left: the rooms of \
lm4ve, each of which imports only rooms below it. Right: the path of a picture through \
a training step, and where additions go.">
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" \
markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#666"/></marker></defs>
<rect width="1010" height="{HEIGHT}" fill="#fff"/>"""


def box(x: int, y: int, width: int, height: int, fill: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
        f'fill="{fill}" stroke="#777"/>'
    )


def text(x: int, y: int, words: str, anchor: str = 'middle', style: str = '') -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#222" {style}>'
        f'{escape(words)}</text>'
    )


def arrow(x: int, y: int, end_x: int, end_y: int) -> str:
    return (
        f'<path d="M{x} {y}L{end_x} {end_y}" stroke="#666" stroke-width="1.6" '
        'fill="none" marker-end="url(#head)"/>'
    )


def small(x: int, y: int, words: str, anchor: str = 'middle') -> str:
    return text(x, y, words, anchor, 'font-size="12"')


def title(x: int, words: str) -> str:
    return text(x, 28, words, 'start', 'font-size="16" font-weight="bold"')


def draw_rooms() -> list[str]:
    """Draw the rooms as a stack; an arrow beside it points the way of imports."""
    parts = [title(50, 'Rooms import only rooms below them')]
    y = TOP
    for names, purpose in ROOMS:
        fill = GREY
        if names in ('runner', 'necks', 'blocks', 'llm'):
            fill = BLUE
        parts.append(box(50, y, 330, 56, fill))
        parts.append(text(215, y + 24, names))
        parts.append(small(215, y + 44, purpose))
        y += STEP
    parts.append(arrow(28, 60, 28, y - 25))
    parts.append(
        '<text x="20" y="390" transform="rotate(-90 20 390)" text-anchor="middle" '
        'fill="#666">imports</text>'
    )
    return parts


def draw_addition(y: int, words: str) -> list[str]:
    """Draw the place of an addition, to the right of what it is added to."""
    return [
        box(830, y, 165, 34, GREEN),
        text(912, y + 22, words),
        arrow(830, y + 17, 797, y + 17),
    ]


def draw_station(y: int, name: str, note: str, addition: str = '') -> list[str]:
    """Draw a station outside of the neck, and what is added there."""
    parts = [box(470, y, 325, 44, WHITE), text(632, y + 19, name)]
    parts.append(small(632, y + 36, note))
    if addition:
        parts += draw_addition(y + 5, addition)
    return parts


def draw_neck() -> list[str]:
    """Draw what runs in the neck, from tokens to what the head reads."""
    parts = [
        '<rect x="440" y="302" width="370" height="268" rx="10" fill="none" '
        'stroke="#999" stroke-dasharray="5 3"/>',
        small(450, 318, 'LLMBlockNeck', 'start'),
    ]
    stations = [
        (326, 'reader', 'features in any layout → tokens [B, N, C]'),
        (378, 'parts', 'variants: other tokens, order or queries'),
        (430, 'path', 'mapper C → D, frozen block, mapper D → C, residual'),
        (514, 'readout', 'which tokens to compute; norm; mean, class token'),
    ]
    for y, name, note in stations:
        height = 72 if name == 'path' else 42
        fill = BLUE if name == 'path' else WHITE
        parts.append(box(470, y, 325, height, fill))
        parts.append(text(632, y + 18, name))
        parts.append(small(632, y + 35, note))
    parts.append(small(632, 492, 'padding mask → attention masks of the block'))
    for y in (368, 420, 502):
        parts.append(arrow(632, y, 632, y + 9))
    parts += draw_addition(382, 'a variant of the neck')
    parts += draw_addition(449, 'a model family')
    return parts


def draw_step() -> list[str]:
    """Draw the path of a picture through a training step."""
    parts = [title(440, 'A training step')]
    parts += draw_station(50, 'config', 'a Python file in configs/', 'a task')
    parts += draw_station(
        114, 'Runner', 'builds all that follows; hooks save and check'
    )
    parts += draw_station(
        178, 'data set', 'pictures → pixels [B, 3, H, W] and labels', 'a data set'
    )
    parts += draw_station(
        242, 'backbone', 'pixels → features, and a padding mask', 'a host, a backbone'
    )
    parts += draw_neck()
    parts += draw_station(594, 'head', "the task's or the host's")
    parts += draw_station(658, 'loss', 'in evaluation: metrics instead', 'a metric')
    for y in (94, 158, 222):
        parts.append(arrow(632, y, 632, y + 18))
    parts.append(arrow(632, 286, 632, 324))
    parts.append(arrow(632, 556, 632, 592))
    parts.append(arrow(632, 638, 632, 656))
    parts.append(small(912, 726, 'green: where additions go'))
    return parts


def picture() -> str:
    """Return the whole picture as SVG."""
    lines = [_HEAD, *draw_rooms(), *draw_step(), '</svg>']
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    OUT.write_text(picture(), encoding='utf-8')
