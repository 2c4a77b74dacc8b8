"""The scope ``lm4ve``: children of MMEngine's root registries.

Blocks and necks are in the root itself, so that every OpenMMLab scope finds
them under their plain names. Everything else of ours is named with the scope,
for example ``type='lm4ve.DigitsDataset'``, and cannot collide with a host's.
"""
from mmengine import registry as root
from mmengine.registry import Registry

SCOPE = 'lm4ve'


def _child(parent: Registry, locations: list) -> Registry:
    return Registry(
        parent.name, parent=parent, scope=SCOPE, locations=locations)


MODELS = _child(root.MODELS, [
    'lm4ve.necks',
    'lm4ve.blocks',
    'lm4ve.video',
    'lm4ve.pointcloud',
    'lm4ve.motion'
])
DATASETS = _child(root.DATASETS, [
    'lm4ve.image',
    'lm4ve.demo',
    'lm4ve.video',
    'lm4ve.pointcloud',
    'lm4ve.motion'
])
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, ['lm4ve.image'])
TRANSFORMS = _child(root.TRANSFORMS, [
    'lm4ve.image',
    'lm4ve.video',
    'lm4ve.pointcloud',
    'lm4ve.motion'
])
METRICS = _child(root.METRICS, [
    'lm4ve.image',
    'lm4ve.pointcloud',
    'lm4ve.motion'
])
FUNCTIONS = _child(root.FUNCTIONS, ['lm4ve.image', 'lm4ve.motion'])
HOOKS = _child(root.HOOKS, ['lm4ve.engine', 'lm4ve.motion', 'lm4ve.analysis.hook'])
VISUALIZERS = _child(root.VISUALIZERS, ['lm4ve.motion'])
