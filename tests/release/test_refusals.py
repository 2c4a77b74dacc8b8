"""What cannot be exported is refused by one message, and nothing is left behind."""

from pathlib import Path

import pytest
import torch

from lm4ve.commands import export
from lm4ve.errors import CheckpointError, UserError
from lm4ve.release import exporting, formats
from tests.helpers.tiny_runs import PLACE, write_runs

pytest.importorskip('mmpretrain')
CONFIG, CHECKPOINT = f'{PLACE}/vit_frozen.py', f'{PLACE}/vit_frozen.pth'


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    write_runs(tmp_path, 'vit_frozen', 'vit_mlp')
    monkeypatch.chdir(tmp_path)
    Path('there.safetensors').write_text('somebody needs this')


WRONG = {
    'a file': ([CONFIG, CHECKPOINT, '--out', 'there.safetensors'], 'exists. Fix: --overwrite'),
    'another block': ([CONFIG, f'{PLACE}/vit_mlp.pth'], 'llm_source'),
    'a flag of another format': ([CONFIG, CHECKPOINT, '--with-block'], 'for safetensors'),
}


@pytest.mark.parametrize('words, message', WRONG.values(), ids=WRONG)
def test_a_mistake_is_told_before_anything_is_written(words, message):
    with pytest.raises((UserError, CheckpointError), match=message):
        export.main(words)
    assert not [p for p in Path().rglob('*') if p.suffix in ('.onnx', '.pt2')]
    assert Path('there.safetensors').read_text() == 'somebody needs this'


def test_a_file_that_differs_from_the_model_is_not_kept(monkeypatch):
    wrong = formats.load_torch_export

    def load(path):
        run = wrong(path)
        return lambda tensors: tuple(t + 1e-3 for t in run(tensors))

    monkeypatch.setitem(exporting._WRITERS, 'torch-export', (formats.write_torch_export, load))
    words = [CONFIG, CHECKPOINT, '--format', 'torch-export', '--out', 'made/model.pt2']
    with pytest.raises(UserError, match='differs from the model by .* at a batch of 1'):
        export.main(words)
    assert not list(Path('made').iterdir())
    export.main([*words, '--tolerance', '0.1'])
    assert [p.name for p in Path('made').iterdir()] == ['model.pt2']


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_outputs_that_are_no_numbers_are_no_match(bad):
    good, wrong = torch.zeros(2), torch.tensor([bad, 1.0])
    for outputs in ([good, wrong], [wrong, good]):
        assert not exporting.largest_difference(outputs, outputs) <= 1e9
    assert exporting.largest_difference([good], [good]) == 0
