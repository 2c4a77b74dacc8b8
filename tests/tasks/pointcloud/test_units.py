"""Clouds in other units than the usual ones are reported."""

import torch


def test_clouds_in_millimeters_warn_once(monkeypatch):
    from lm4ve.tasks.pointcloud.models import classifier

    said = []
    monkeypatch.setattr(classifier, 'print_log', lambda text, **_: said.append(text))
    for scale, warnings in ((1.0, 0), (800.0, 1)):
        preprocessor = classifier.PointCloudPreprocessor()
        for _ in range(2):
            preprocessor(dict(inputs=[torch.rand(8, 3) * scale]))
        assert len(said) == warnings
    assert 'lm4ve.NormalizeToUnitSphere' in said[0]
