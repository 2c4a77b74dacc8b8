"""How many entries the complete data sets of our recipes have; their files are not needed.

The pages on recipes and on what the grids take are filled from it.
"""

from typing import Any

#: A data set's type, what is in its fields, and entries of it when complete. A field
#: fits if it has the value, or if it is text that contains it.
SIZES: tuple[tuple[str, dict[str, str], int], ...] = (
    ('CheckedImageNet', dict(split='train'), 1_281_167),
    ('CheckedRepeatAugDataset', dict(ann_file='sthv2_train'), 168_913),
    ('CheckedRepeatAugDataset', dict(ann_file='kinetics400_train'), 240_436),
    ('CheckedVideoDataset', dict(ann_file='kinetics400_train'), 240_436),
    ('ModelNet40', dict(split='train'), 9_843),
    ('ScanObjectNN', dict(split='train', variant='hardest'), 11_416),
    ('ScanObjectNN', dict(split='train', variant='objectbg'), 2_309),
    ('ScanObjectNN', dict(split='train', variant='objectonly'), 2_309),
    ('MotionDataset', dict(cache='argoverse1/train'), 205_942),
    ('MotionDataset', dict(cache='argoverse2/train'), 199_908),
    ('VQAv2', dict(split='train2014'), 443_757),
    ('VQAv2', dict(split='val2014'), 214_354),
    # Each image has five captions.
    ('KarpathyRetrieval', dict(ann_file='flickr30k', split='train'), 145_000),
    ('KarpathyRetrieval', dict(ann_file='coco', split='restval'), 566_747),
    ('SQA3DDataset', dict(split='train'), 26_623),
    ('ScanQADataset', dict(split='train'), 25_563),
    ('MedMNIST', dict(flag='retinamnist', split='train'), 1_080),
    ('MedMNIST', dict(flag='fracturemnist3d', split='train'), 1_027),
    # 72 % of the labeled volumes.
    ('Decathlon', dict(data_root='BrainTumour', split='train'), 348),
    ('Decathlon', dict(data_root='Spleen', split='train'), 30),
)


def samples_of(dataset: Any) -> int:
    """Return the entries of a data set that is complete.

    Args:
        dataset (ConfigDict): Its config. Of several data sets in one, the sum counts.

    Raises:
        LookupError: It is not in :data:`SIZES`.
    """
    parts = dataset.get('datasets')
    if parts:
        return sum(samples_of(part) for part in parts)
    kind = str(dataset.get('type')).rpartition('.')[2]
    for name, fields, size in SIZES:
        if name == kind and _fits(dataset, fields):
            return size
    raise LookupError(f'The size of {kind} is not in tools/dev/data_sizes.py.')


def _fits(dataset: Any, fields: dict[str, str]) -> bool:
    """Return whether a data set's config contains all values of some fields."""
    return all(value in (dataset.get(field) or '') for field, value in fields.items())
