"""An SQA3D of a few thousand parameters, and rooms of forty points."""

import torch
from mmengine.registry import MODELS

from lm4ve.text.structures import VisionLanguageDataSample
from tests.helpers.vqa.tiny import BLOCK

WORDS = 'I am facing the wall what is behind me left chair ? . unk'.split()
CORPUS = ['chair'] * 5 + ['table'] * 3 + ['two', 'two', 'left']
POINTS = 40
SIZES = [[0.5, 0.6, 0.7], [1.0, 1.1, 1.2], [2.0, 0.3, 0.4]]
_ROWS = torch.randn(len(WORDS), 5, generator=torch.Generator().manual_seed(3)).tolist()
VECTORS = dict(zip(WORDS, _ROWS, strict=True))
VOTENET = dict(
    type='lm4ve.VoteNet',
    in_channels=4,
    mean_sizes=SIZES,
    num_points=(16, 12, 8, 6),
    radii=(0.5, 0.8, 1.2, 1.6),
    samples=(6, 5, 4, 4),
    channels=((6, 6, 8), (8, 8, 10), (8, 8, 10), (8, 8, 10)),
    propagation=((10, 10), (10, 10)),
    num_proposals=6,
    proposal_radius=0.8,
    proposal_samples=4,
    proposal_channels=7,
)
NECK = dict(type='LLMBlockNeck', in_channels=16, block=BLOCK, norm_cfg=None)
STORED = dict(type='lm4ve.StoredObjects', in_channels=9)
TEXTS = (
    ['I am facing the wall.', 'what is behind me?'],
    ['I am facing the chair left.', 'what is left?'],
)


def config(neck: bool = False, stored: bool = False, **changes) -> dict:
    """Return the config of a tiny SQA3D."""
    default = dict(
        type='lm4ve.SQA3D',
        data_preprocessor=dict(type='lm4ve.SQA3DPreprocessor', word_vectors=VECTORS),
        object_encoder=STORED if stored else VOTENET,
        text_encoder=dict(type='lm4ve.LSTMTextEncoder', in_channels=5, channels=16),
        fusion=dict(type='lm4ve.GuidedFusion', embed_dims=16, num_heads=2),
        neck=NECK if neck else None,
        pool=dict(hidden_channels=9, out_channels=12),
        head=dict(
            type='lm4ve.SceneAnswerHead',
            answers=CORPUS,
            in_channels=36,
            hidden_channels=16,
        ),
        pose_head=dict(type='lm4ve.PoseHead', in_channels=24, hidden_channels=16),
    )
    return default | changes


def build(*args, **changes):
    """Build a tiny SQA3D."""
    return MODELS.build(config(*args, **changes))


def room(count: int = POINTS, seed: int = 0) -> torch.Tensor:
    """Points ``[count, 7]`` in a room of 3 m: x, y, z, colors from 0 to 255, height."""
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(count, 3, generator=generator) * 3
    colors = torch.randint(256, (count, 3), generator=generator).float()
    return torch.cat((xyz, colors, xyz[:, 2:]), dim=1)


def sample(points: torch.Tensor, number: int, **fields) -> VisionLanguageDataSample:
    """Return a sample with all annotations, of two boxes."""
    metainfo = dict(
        gt_answers=['chair'],
        text=list(TEXTS[number % 2]),
        scene_id=f'scene{number:04d}_00',
    )
    made = VisionLanguageDataSample(metainfo=metainfo | fields)
    centers = points[:2, :3]
    made.gt_boxes = torch.cat((centers, torch.tensor(SIZES[:2]) + 0.1), dim=1)
    made.gt_labels = torch.tensor([0, 1])
    made.gt_votes = centers[:1] - points[:, :3]
    made.gt_vote_mask = torch.arange(len(points)) < len(points) // 2
    made.gt_pose = torch.tensor([0.1, 0.2, 0.0, 0.0, 0.0, 0.6, 0.8])
    return made


def batch(counts=(POINTS, POINTS), stored: bool = False, **fields) -> dict:
    """Return a batch as MMEngine's ``pseudo_collate`` gives it."""
    rooms = [room(count, i) for i, count in enumerate(counts)]
    samples = [sample(points, i, **fields) for i, points in enumerate(rooms)]
    inputs = dict(points=rooms)
    if stored:
        inputs = dict(objects=[objects(count) for count in counts])
    return dict(inputs=inputs, data_samples=samples)


def objects(count: int) -> torch.Tensor:
    """Features ``[count, 9]`` of objects as files store them."""
    return torch.randn(count, 9, generator=torch.Generator().manual_seed(count))
