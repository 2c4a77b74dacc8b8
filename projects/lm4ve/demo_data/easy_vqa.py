"""easy-vqa: 5,000 small pictures and 48,248 questions that come as a Python package.

Real public data that nobody here made: https://github.com/vzhou842/easy-VQA, version
1.0, MIT license. Each picture has one shape in one color; the 13 answers are shapes,
colors, yes and no.

The package's files are found through its metadata and nothing of it is imported: its
wheel also installs a top-level package ``test``.
"""

import importlib.metadata
from pathlib import Path

from lm4ve.errors import require

#: The answers, in the order of the package's ``answers.txt``.
ANSWERS = (
    'circle',
    'green',
    'red',
    'gray',
    'yes',
    'teal',
    'black',
    'rectangle',
    'yellow',
    'triangle',
    'brown',
    'blue',
    'no',
)
#: Splits of the questions; 'fit' and 'val' are parts of 'train'.
SPLITS = ('train', 'fit', 'val', 'test')
#: The training images from this one on, with their questions, are for choosing
#: settings.
FIRST_VAL = 3600


def locate_easy_vqa() -> Path:
    """Return the folder of the installed package's data, of version 1.0.

    Raises:
        PackageNotFoundError: The package is not installed.
        UserError: It is another version.
    """
    package = importlib.metadata.distribution('easy-vqa')
    require(
        package.version == '1.0',
        f"the version of the package easy-vqa is {package.version}, but the demo's data is that of "
        "1.0. Fix: pip install 'easy-vqa==1.0'.",
    )
    return Path(str(package.locate_file('easy_vqa/data')))


def is_in_split(image: int, split: str) -> bool:
    """Return whether a split has an image of the package's part, by its number.

    Args:
        image (int): The image's number in 'test', for that split, else in 'train'.
        split (str): One of :data:`SPLITS`.
    """
    if split == 'fit':
        return image < FIRST_VAL
    if split == 'val':
        return image >= FIRST_VAL
    return True
