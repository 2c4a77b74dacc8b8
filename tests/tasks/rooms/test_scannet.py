"""ScanNet's ids fall into the classes that the model tells apart."""

from lm4ve.tasks.rooms.scannet import CLASSES, NYU40_IDS, class_of


def test_every_object_has_a_class_and_walls_have_none():
    assert len(CLASSES) == len(NYU40_IDS) + 1 == 18
    assert [CLASSES[class_of(i)] for i in (3, 5, 24, 36, 39, 40)] == [
        *('cabinet', 'chair', 'refrigerator', 'bathtub', 'others', 'others')
    ]
    assert [class_of(i) for i in (0, 1, 2, 22, 41, -1)] == [None] * 6
