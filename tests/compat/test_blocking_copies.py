"""MMEngine's preprocessors copy a batch without waiting for a device that may be busy."""

import pytest
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement

#: Stands for a GPU: a device that is not the CPU.
OTHER = torch.device('meta')


class Sample(BaseDataElement):
    """Notes how it is copied."""

    def to(self, device, non_blocking=False):
        self.copied = (torch.device(device), non_blocking)
        return self


@pytest.mark.parametrize('field', [False, True])
@pytest.mark.parametrize(('device', 'blocks'), [('cpu', True), (OTHER, False)])
def test_copies_block_only_to_the_cpu(device, blocks, field):
    preprocessor = BaseDataPreprocessor(non_blocking=field).to(device)
    sample = Sample()
    preprocessor(dict(inputs=torch.ones(2), data_samples=[sample]))
    assert sample.copied == (torch.device(device), field or not blocks)
