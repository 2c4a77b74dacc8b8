"""Waves of 32 samples, slow or fast, with noise."""

import torch
from mmengine.dataset import BaseDataset

from lm4ve.registry import DATASETS


@DATASETS.register_module()
class Waves(BaseDataset):
    """Sixteen waves: ``inputs`` float32 ``[32]`` and ``label`` (0 slow, 1 fast)."""

    METAINFO = dict(classes=('slow', 'fast'))

    def load_data_list(self) -> list[dict]:
        torch.manual_seed(int(self.test_mode))
        time = torch.arange(32) / 32
        waves = [torch.sin(6.28 * f * time) + 0.3 * torch.randn(32) for f in (2, 8) * 8]
        return [dict(inputs=wave, label=i % 2) for i, wave in enumerate(waves)]
