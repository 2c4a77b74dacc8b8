"""A tiny model and a batch of every task, random weights."""

import functools
import tempfile

import torch
from mmengine.registry import MODELS, init_default_scope

from tests.helpers.pointcloud.tiny import build as build_classifier

D = 24
ARCH = dict(
    model_type='llama',
    hidden_size=D,
    intermediate_size=32,
    num_hidden_layers=2,
    vocab_size=8,
    num_attention_heads=4,
    num_key_value_heads=2,
)
#: A block of two random layers of LLaMA's family, 24 channels wide.
BLOCK = dict(type='LLMBlock', layers=(0, 1), arch=ARCH)
TASKS = ('image', 'video', 'pointcloud', 'motion')


def neck(channels: int, **options):
    """Return the config of a neck with :data:`BLOCK` for tokens of so many channels."""
    return dict(type='LLMBlockNeck', in_channels=channels, block=BLOCK, **options)


def image(block=True, **options):
    """An mmpretrain ViT on 6 x 4 patches, wider than high; three classes."""
    init_default_scope('mmpretrain')
    from mmpretrain.structures import DataSample

    sizes = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=24)
    config = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='VisionTransformer', img_size=(16, 24), patch_size=4, arch=sizes
        ),
        neck=None,
        head=dict(type='VisionTransformerClsHead', num_classes=3, in_channels=16),
    )
    if block:
        config['backbone'].update(out_type='raw', final_norm=False)
        config['neck'] = neck(16, **{'out_type': 'cls_token', **options})
    model = MODELS.build(config)
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    return model, dict(inputs=torch.randn(2, 3, 16, 24), data_samples=samples)


def video(**options):
    """A VideoMAE ViT on 2 x 4 x 4 tubes; two views a clip."""
    init_default_scope('mmaction')
    from mmaction.structures import ActionDataSample

    config = dict(
        type='mmaction.Recognizer3D',
        data_preprocessor=dict(type='ActionDataPreprocessor', format_shape='NCTHW'),
        backbone=dict(
            type='VisionTransformer',
            img_size=16,
            patch_size=4,
            embed_dims=16,
            depth=2,
            num_heads=2,
            mlp_ratio=2.0,
            num_frames=4,
            tubelet_size=2,
            return_feat_map=True,
        ),
        neck=neck(16, **{'out_type': 'avg_featmap', **options}),
        cls_head=dict(
            type='TimeSformerHead', num_classes=3, in_channels=16, average_clips='prob'
        ),
    )
    model = MODELS.build(config)
    samples = [ActionDataSample().set_gt_label(i) for i in range(2)]
    clips = [torch.randn(2, 3, 4, 16, 16) for _ in range(2)]
    return model, dict(inputs=clips, data_samples=samples)


def pointcloud(**options):
    """A Point-BERT with six groups."""
    from lm4ve.tasks.pointcloud import PointCloudDataSample

    samples = [PointCloudDataSample(gt_label=torch.tensor([i])) for i in range(2)]
    clouds = [torch.randn(40, 3) for _ in range(2)]
    model = build_classifier(neck=neck(12, **options))
    return model, dict(inputs=clouds, data_samples=samples)


@functools.cache
def scenes() -> list:
    """Two simulated scenes, through the files of Argoverse 1."""
    from lm4ve.tasks.motion import Argoverse1Reader
    from lm4ve.tasks.motion.datasets.traffic_files import write_argoverse1

    with tempfile.TemporaryDirectory() as folder:
        write_argoverse1(folder, dict(train=2))
        reader = Argoverse1Reader(f'{folder}/train/data', f'{folder}/map_files')
        return [reader.read(file) for file in reader.files()]


def motion(**options):
    """A VectorNet on two scenes of unequal size."""
    from lm4ve.tasks.motion import VectorizeScene, collate_scenes

    config = dict(
        type='lm4ve.MotionForecaster',
        encoder=dict(type='lm4ve.VectorNet', channels=(4, 8), final_norm=False),
        neck=neck(16, **options),
        decoder=dict(type='lm4ve.TrajectoryDecoder', in_channels=16, future_steps=30),
    )
    model = MODELS.build(config)
    vectorize = VectorizeScene()
    return model, collate_scenes([vectorize(dict(scene=scene)) for scene in scenes()])


def build(task: str, **options):
    """Model (eval) and batch of a task."""
    torch.manual_seed(0)
    builders = dict(image=image, video=video, pointcloud=pointcloud, motion=motion)
    model, data = builders[task](**options)
    model.init_weights()
    # Hosts start heads at zero and mappers near it: nothing would be seen.
    for name, module in model.named_modules():
        is_small = 'mapper' in name or 'head' in name
        if is_small and isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.3)
    return model.eval(), data


def call_of(model, data, module) -> tuple:
    """The first input of a module and its named arguments, computed without the analysis."""
    calls = []

    def keep(module, args, named):
        calls.append((args[0], named))

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        model.test_step(data)
    handle.remove()
    return calls[0]
