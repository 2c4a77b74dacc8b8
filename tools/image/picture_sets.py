"""Write sets of real pictures from packages, as PNG files and a CSV, for ``lm4ve try``.

    python tools/image/picture_sets.py openmoji --source openmoji/ --out data/openmoji
    lm4ve try package:efficientnet-lite0 data/openmoji/pictures.csv --block
    package:all-MiniLM-L6-v2

The CSV has the columns path, label, split and group. The pictures of a group are
variants of one drawing or fonts of one design, and stand on one side of a split.
train.txt, val.txt and test.txt hold the same for mmpretrain's CustomDataset. The sets,
what --source names, and the licences of the pictures:

openmoji: drawings, nine classes (CC BY-SA 4.0). The unpacked npm package openmoji;
    resvg-py (pip) draws its files.
emoji-vendors: the same classes, trained on Twemoji's drawings (CC BY 4.0) and tested on
    Noto's (Apache 2.0) of other emoji. The unpacked npm packages
    emoji-datasource-twitter and emoji-datasource-google, in this order.
digits: scikit-learn's handwritten digits, enlarged. No source. CC BY 4.0.
glyphs: small letters, tested on fonts of unseen designs. Folders of .ttf and .otf
    files, for example of Debian's font packages, whose licences they keep.
easy-vqa: one shape of one color, 24 classes. No source: the package easy-vqa. MIT.
fashion: photographs of clothes, 28 pixels and gray, ten classes: 400 of each, drawn from
    the test pictures of Fashion-MNIST. The folder of Debian's package
    dataset-fashion-mnist 0.0~git20200523.55506a9-1 (/usr/share/datasets/fashion-mnist).
    MIT.

The npm packages come with `npm pack NAME`. Flags, clock faces and the like are drawings
of their own, though they resemble each other.
"""

import gzip
import hashlib
import io
import json
import re
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from lm4ve.errors import UserError, check
from lm4ve.files import write_csv
from lm4ve.runner.command_line import build_parser, run_tool


class Picture(NamedTuple):
    """A picture and its row; ``split`` where the source fixes it."""

    name: str
    image: Image.Image
    label: str
    group: str
    split: str = ''


# ---------------------------------------------------------------------------- emoji
#: Code points that make variants of a drawing: skin tones, hair, gender signs, the
#: joiner and the style of presentation.
_VARIANT = re.compile('1F3F[B-F]|1F9B[0-3]|2640|2642|200D|FE0F')
#: Persons who differ by gender or age alone.
_PERSONS = {
    **dict.fromkeys(['1F466', '1F467', '1F468', '1F469', '1F9D1', '1F9D2'], 'person'),
    **dict.fromkeys(['1F474', '1F475', '1F9D3'], 'old person'),
    **dict.fromkeys(['1F934', '1F478', '1FAC5'], 'royal'),
    **dict.fromkeys(['1F385', '1F936'], 'Claus'),
    **dict.fromkeys(['1F57A', '1F483'], 'dancer'),
    **dict.fromkeys(['1F46B', '1F46C', '1F46D'], 'person person'),
}
MOST_VARIANTS = 3


def drawing_of(code: str) -> str:
    """Return what the variants of an emoji share, from its code points in hexadecimal."""
    points = code.upper().split('-')
    shared = [_PERSONS.get(p, p) for p in points if not _VARIANT.fullmatch(p)]
    return ' '.join(dict.fromkeys(shared)) or code.upper()


def _choose_variants(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Return at most MOST_VARIANTS rows of each group, chosen at random, in a stable order."""
    shuffled = table.iloc[rng.permutation(len(table))]
    return shuffled.groupby('group').head(MOST_VARIANTS).sort_index()


def read_openmoji(args: Any) -> Iterator[Picture]:
    """Yield OpenMoji's emojis, drawn from SVG; variants of a drawing are one group."""
    (root,) = args.source
    from resvg_py import svg_to_bytes

    table = pd.read_csv(root / 'data/openmoji.csv', dtype=str, keep_default_na=False)
    is_emoji = ~table['group'].str.match('extras|component')
    table = table[is_emoji].rename(columns={'group': 'label'})
    table['group'] = table['hexcode'].map(drawing_of)
    for row in _choose_variants(table, args.rng).itertuples():
        path = root / f'color/svg/{row.hexcode}.svg'
        png = svg_to_bytes(svg_path=str(path), width=args.size, height=args.size)
        yield Picture(row.hexcode, Image.open(io.BytesIO(png)), row.label, row.group)


def read_vendors(args: Any) -> Iterator[Picture]:
    """Yield Twemoji's pictures for training and Noto's for tests.

    Both are yielded with the split in which they may stand; the other half is left out.
    """
    twitter, google = args.source
    entries = json.loads((twitter / 'emoji.json').read_text('utf-8'))
    rows = []
    for entry in entries:
        label = entry['category'].lower().replace(' & ', '-')
        for variant in [entry, *entry.get('skin_variations', {}).values()]:
            if variant['has_img_twitter'] and variant['has_img_google']:
                group = drawing_of(variant['unified'])
                rows.append(dict(image=variant['image'], label=label, group=group))
    table = pd.DataFrame(rows, columns=['image', 'label', 'group'])
    table = table[table['label'] != 'component']
    for row in _choose_variants(table, args.rng).itertuples():
        yield _vendors_picture(twitter, 'twitter', row, 'train')
        yield _vendors_picture(google, 'google', row, 'test')


def _vendors_picture(root: Path, vendor: str, row: Any, split: str) -> Picture:
    """Read a vendor's picture of an emoji, 64 pixels a side, for a split."""
    with Image.open(root / f'img/{vendor}/64/{row.image}') as file:
        image = file.convert('RGBA')
    name = f'{vendor}-{row.image.removesuffix(".png")}'
    return Picture(name, image, row.label, row.group, split)


# ---------------------------------------------------------------------------- others
def read_digits(args: Any) -> Iterator[Picture]:
    """Yield scikit-learn's scans of digits, dark on white, enlarged; each is a group."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i, (scan, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        pixels = (255 - scan * 255 / 16).round().astype(np.uint8)
        image = Image.fromarray(pixels)
        image = image.resize((args.size, args.size), Image.BICUBIC)
        yield Picture(f'{i:04d}', image, str(label), str(i))


#: Fonts of symbols give them the codes of letters.
_SYMBOLS = re.compile('Symbol|Dingbat|D050|Keyboard|Math')


def _fonts(folders: Sequence[Path]) -> pd.DataFrame:
    """List the fonts that have all small letters; those of one design share their first word."""
    from fontTools.ttLib import TTFont

    paths = []
    for folder in folders:
        paths += [*folder.rglob('*.ttf'), *folder.rglob('*.otf')]
    letters = {ord(letter) for letter in string.ascii_lowercase}
    rows = []
    for path in sorted(paths):
        with TTFont(path, lazy=True) as font:
            characters = font.getBestCmap() or {}
            names = font['name']
            family = names.getDebugName(16) or names.getDebugName(1)
        if _SYMBOLS.search(family) or not letters <= set(characters):
            continue
        first_word = re.match('[A-Z]+(?![a-z])|[A-Z]?[a-z]+', family)
        group = first_word[0] if first_word else family
        rows.append(dict(path=path, group=group))
    return pd.DataFrame(rows, columns=['path', 'group'])


def read_glyphs(args: Any) -> Iterator[Picture]:
    """Yield the letters of at most six fonts of a design, which fill two thirds of a picture."""
    table = _fonts(args.source)
    shuffled = table.iloc[args.rng.permutation(len(table))]
    chosen = shuffled.groupby('group').head(6).sort_values('path')
    middle = args.size / 2
    for row in chosen.itertuples():
        font = ImageFont.truetype(str(row.path), args.size * 2 // 3)
        for letter in string.ascii_lowercase:
            image = Image.new('L', (args.size, args.size), 255)
            draw = ImageDraw.Draw(image)
            draw.text((middle, middle), letter, anchor='mm', font=font, fill=0)
            yield Picture(f'{letter}-{row.path.stem}', image, letter, row.group)


_SHAPES = {'circle', 'rectangle', 'triangle'}
_COLORS = {'black', 'blue', 'brown', 'gray', 'green', 'red', 'teal', 'yellow'}


def read_easy_vqa(args: Any) -> Iterator[Picture]:
    """Yield the pictures of easy-VQA whose questions tell one shape and one color.

    They are the label. No two pictures are of one group, so that the set is split
    freely. The data set comes with its package, so ``args`` is not used.
    """
    from lm4ve.demo_data.easy_vqa import locate_easy_vqa

    for part in ('train', 'test'):
        root = locate_easy_vqa() / part
        for index, words in sorted(_true_words(root / 'questions.json').items()):
            shapes = words & _SHAPES
            colors = words & _COLORS
            if len(shapes) == 1 and len(colors) == 1:
                with Image.open(root / f'images/{index}.png') as file:
                    image = file.convert('RGB')
                name = f'{part}-{index}'
                label = ' '.join([*colors, *shapes])
                yield Picture(name, image, label, group=name)


def _true_words(path: Path) -> dict[int, set[str]]:
    """Return number of a picture -> words of its questions and answers that are true of it.

    easy-VQA asks what is there, as 'what color is the triangle?', where all words and the
    answer are true, or for one thing, as 'is there a circle?', where they are true if the
    answer is yes. Other questions, as 'is there not a circle?', are left out.

    Args:
        path (Path): A JSON file of lists: question, answer, number of the picture.
    """
    words: dict[int, set[str]] = {}
    for question, answer, index in json.loads(path.read_text('utf-8')):
        is_denied = ' no' in question  # 'no' or 'not'
        is_affirmed = answer == 'yes' and not is_denied
        if question.startswith('what') or is_affirmed:
            known = words.setdefault(index, set())
            known.update(re.findall('[a-z]+', question))
            known.add(answer)
    return words


_CLOTHES = (
    't-shirt',
    'trouser',
    'pullover',
    'dress',
    'coat',
    'sandal',
    'shirt',
    'sneaker',
    'bag',
    'ankle boot',
)
_PER_CLOTHING = 400


def read_fashion(args: Any) -> Iterator[Picture]:
    """Yield Fashion-MNIST's photographs, enlarged and dark on white as they were taken.

    Each is a group: no two of its test pictures are equal, and it tells no article.
    """
    (root,) = args.source
    pixels = _idx_values(
        root / 't10k-images-idx3-ubyte.gz',
        sha256='cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa',
    )
    pictures = 255 - pixels.reshape(-1, 28, 28)
    labels = _idx_values(
        root / 't10k-labels-idx1-ubyte.gz',
        sha256='8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05',
    )
    for number, label in enumerate(_CLOTHES):
        own = np.flatnonzero(labels == number)
        chosen = args.rng.choice(own, _PER_CLOTHING, replace=False)
        for i in np.sort(chosen):
            image = Image.fromarray(pictures[i])
            image = image.resize((args.size, args.size), Image.BICUBIC)
            yield Picture(f'{i:04d}', image, label, str(i))


def _idx_values(path: Path, sha256: str) -> np.ndarray:
    """Read the values of a zipped file in MNIST's format, and no other file.

    Args:
        path (Path): The file: two bytes zero, the type, the number of axes, each axis's
            length in four bytes, then the values.
        sha256 (str): The file's hash.

    Returns:
        np.ndarray: ``[values]``, uint8.

    Raises:
        UserError: The file has another hash.
    """
    zipped = path.read_bytes()
    if hashlib.sha256(zipped).hexdigest() != sha256:
        raise UserError(
            f"'{path}' is not the one whose pictures were studied. Fix: take that of "
            "Debian's dataset-fashion-mnist 0.0~git20200523.55506a9-1."
        )
    content = gzip.decompress(zipped)
    axes = content[3]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes)


# ---------------------------------------------------------------------------- writing
class PictureSet(NamedTuple):
    """A set.

    Attributes:
        read (callable): Yields its pictures, given the arguments of the command.
        least_sources (int): How many sources it needs at least.
        test, val (float): How much of it is for tests, and for validation.
    """

    read: Callable[[Any], Iterator[Picture]]
    least_sources: int
    test: float
    val: float


SETS = {
    'openmoji': PictureSet(read_openmoji, 1, test=0.5, val=0.12),
    'emoji-vendors': PictureSet(read_vendors, 2, test=0.52, val=0.12),
    'digits': PictureSet(read_digits, 0, test=0.56, val=0.11),
    'glyphs': PictureSet(read_glyphs, 1, test=0.45, val=0.12),
    'easy-vqa': PictureSet(read_easy_vqa, 0, test=0.25, val=0.1),
    'fashion': PictureSet(read_fashion, 1, test=0.5, val=0.25),
}


def split_groups(
    table: pd.DataFrame, test: float, val: float, rng: np.random.Generator
) -> pd.Series:
    """Return a split for each row of a table with group and label: groups stay whole.

    Each class gives the same share of its groups; a group counts to the class of its
    first row.
    """
    firsts = table.drop_duplicates('group')
    split_of_group: dict[str, str] = {}
    for _, own in firsts.groupby('label'):
        groups = own['group'].to_numpy()[rng.permutation(len(own))]
        bounds = np.round(np.cumsum([test, val]) * len(groups)).astype(int)
        for_test, for_val, for_train = np.split(groups, bounds)
        split_of_group |= dict.fromkeys(for_test, 'test')
        split_of_group |= dict.fromkeys(for_val, 'val')
        split_of_group |= dict.fromkeys(for_train, 'train')
    return table['group'].map(split_of_group)


def write_set(args: Any) -> pd.DataFrame:
    """Write a set as the command line says; return its table."""
    chosen = SETS[args.set]
    pictures = list(chosen.read(args))
    rows = [(f'{p.label}/{p.name}.png', p.label, p.split, p.group) for p in pictures]
    table = pd.DataFrame(rows, columns=['path', 'label', 'given', 'group'])
    if table.empty:
        raise UserError(f'--source={args.source} has no pictures for {args.set}.')
    table['split'] = split_groups(table, chosen.test, chosen.val, args.rng)
    table = _without_twins(_without_other_sides(table), pictures)
    for i in table.index:
        _write_picture(pictures[i].image, args.out / table.loc[i, 'path'])
    listed = table[['path', 'label', 'split', 'group']]
    rows = listed.itertuples(index=False, name=None)
    write_csv(listed.columns, rows, args.out / 'pictures.csv')
    numbers = table['label'].astype('category').cat.codes.astype(str)
    entries = table['path'] + ' ' + numbers
    for split, lines in entries.groupby(table['split']):
        text = '\n'.join(lines) + '\n'
        (args.out / f'{split}.txt').write_text(text, encoding='utf-8')
    return table


def _without_other_sides(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out what the source fixes to the other side of the test."""
    is_free = table['given'] == ''
    is_right = (table['given'] == 'test') == (table['split'] == 'test')
    return table[is_free | is_right]


def _without_twins(table: pd.DataFrame, pictures: Sequence[Picture]) -> pd.DataFrame:
    """Keep a drawing of two names on one side: in the test, or else in val."""
    pixels = table.index.map(lambda i: pictures[i].image.tobytes())
    rank = table['split'].map(['test', 'val', 'train'].index)
    first_rank = rank.groupby(pixels).transform('min')
    return table[rank == first_rank]


def _write_picture(image: Image.Image, path: Path) -> None:
    """Write a picture on a white ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    white = Image.new('RGBA', image.size, 'white')
    Image.alpha_composite(white, image.convert('RGBA')).convert('RGB').save(path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = build_parser(__doc__, {})
    add = parser.add_argument
    add('set', choices=SETS)
    add('--source', type=Path, nargs='*', default=[], help='see above')
    add('--out', type=Path, required=True)
    add('--size', type=int, default=64, help='width and height, where a set is drawn')
    add('--seed', type=int, default=0, help='of variants and splits')
    args = parser.parse_args(argv)
    check(
        'The number of --source', len(args.source), least=SETS[args.set].least_sources
    )
    args.rng = np.random.default_rng(args.seed)
    table = write_set(args)
    counts: Any = pd.crosstab(table['label'], table['split'], margins=True)
    print(counts[['train', 'val', 'test']].to_string())


if __name__ == '__main__':
    run_tool(main)
