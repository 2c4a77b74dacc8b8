"""The studies of docs/results/protocol.md, in its order: what is run, and what a page shows.

The list was fixed before the first score. A study that is added or left out here is no
longer the protocol's.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Each study has a folder here once it has run.
EVIDENCE = ROOT / 'docs/results/evidence'

STAGES = {
    1: 'EfficientNet-Lite0',
    2: 'DINOv2 ViT-S/14',
    3: 'Weak encoders',
    4: 'Five pictures of each class',
    5: 'Trained with the block',
    6: 'Fashion, not scored before',
}
#: The stages whose studies may be left out, from the end; and the one that is scored once.
OPTIONAL = (4, 5)
LAST = 6
#: The rows of a study of heads, and of one with few pictures of each class.
ROWS = ('logreg', 'knn', 'frozen', 'random', 'formal', 'attention', 'mlp')
FEW_SHOT_ROWS = ('logreg', 'knn', 'frozen', 'random', 'attention')


@dataclass(frozen=True)
class Study:
    """A study of the protocol.

    Attributes:
        name (str): Of its folder.
        stage (int): A key of :data:`STAGES`.
        encoder (str): 'lite0', 'dinov2', 'vit', or the config of a demo's encoder, below
            ``configs`` and without its ending. Of a grid: the model, in words.
        data (str): The set.
        shots (int): Pictures of each class to train on; 0: all.
        is_grid (bool): Whether the encoder trains with the block: a grid of
            ``lm4ve ablate``, of which the name is the study's.
    """

    name: str
    stage: int
    encoder: str
    data: str
    shots: int = 0
    is_grid: bool = False

    @property
    def title(self) -> str:
        """What a page calls it."""
        if self.is_grid:
            return f'{self.encoder} trained on {self.data}'
        few = f', {self.shots} pictures of each class' if self.shots else ''
        return f'{WORDS[self.encoder]}, {self.data}{few}'

    @property
    def has_pictures(self) -> bool:
        """Whether its data are one of the sets of ``tools/image/picture_sets.py``."""
        return self.data in DIGESTS

    @property
    def block(self) -> str:
        """The row that all others are compared with."""
        return 'frozen pre-trained' if self.is_grid else 'frozen'

    @property
    def baseline(self) -> str:
        """The other row of the primary comparison."""
        return 'none' if self.is_grid else 'logreg'


_POINTS = 'pointcloud/pointbert-demo_none_primitives'
_CLIPS = 'video/videomae-demo_none_moving-digits'
#: Encoder -> its name in a table.
WORDS = {
    'lite0': 'Lite0',
    'dinov2': 'DINOv2-S',
    'vit': 'ViT of glyphs',
    _POINTS: "the demo's Point-BERT",
    _CLIPS: "the demo's VideoMAE",
}
#: Set -> the first digits of the SHA-256 of its pictures.csv.
DIGESTS = {
    'openmoji': '182520fbb2e1',
    'emoji-vendors': '9a31e27f50b7',
    'glyphs': '2e0fc587a0a6',
    'easy-vqa': '0f84f28d941c',
    'digits': '7291197b8a98',
    'fashion': 'ac2e6565b73c',
}


def _frozen(stage: int, encoder: str, *sets: str, shots: int = 0) -> list[Study]:
    """Return studies of one frozen encoder, whose name says its set and shots."""
    few = f'_{shots}-shots' if shots else ''
    studies = []
    for name in sets:
        studies.append(Study(f'{encoder}_{name}{few}', stage, encoder, name, shots))
    return studies


def _demo(config: str, data: str) -> Study:
    """Return the study of a demo's frozen encoder on the data that it was trained on."""
    return Study(Path(config).name, 3, config, data)


def _trained(grid: str, model: str, data: str) -> Study:
    """Return the study of a grid."""
    return Study(grid, 5, model, data, is_grid=True)


STUDIES = (
    *_frozen(1, 'lite0', 'digits', 'openmoji', 'emoji-vendors', 'glyphs', 'easy-vqa'),
    *_frozen(2, 'dinov2', 'digits', 'openmoji', 'glyphs'),
    *_frozen(3, 'vit', 'openmoji', 'digits'),
    _demo(_POINTS, 'primitives'),
    _demo(_CLIPS, 'moving digits'),
    *_frozen(4, 'lite0', 'digits', 'openmoji', 'glyphs', shots=5),
    *_frozen(4, 'dinov2', 'digits', 'openmoji', 'glyphs', shots=5),
    _trained('digits_formal', 'ViT', 'digits'),
    _trained('moving-digits_formal', 'VideoMAE', 'moving digits'),
    _trained('primitives_formal', 'Point-BERT', 'primitives'),
    *_frozen(6, 'lite0', 'fashion'),
    *_frozen(6, 'dinov2', 'fashion'),
    *_frozen(6, 'vit', 'fashion'),
)
