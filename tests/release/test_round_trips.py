"""An exported file computes what a test of the model does, at batch sizes of its own."""

import functools
import json
from unittest.mock import ANY

import pytest
import torch

from lm4ve.analysis.loading import load_model
from lm4ve.blocks.record import EMBEDDED_PREFIX
from lm4ve.blocks.record_text import KEY
from lm4ve.errors import CheckpointError
from lm4ve.runner.config import read_config
from lm4ve.version import __version__
from tests.helpers.tiny_runs import PLACE, write_runs
from tests.helpers.tools import run_lm4ve, run_tool_here
from tests.helpers.vqa import tiny

for package in ('mmpretrain', 'mmaction', 'pandas', 'onnxscript', 'onnxruntime'):
    pytest.importorskip(package)
import onnxruntime  # noqa: E402

HEADS = ('vqa', 'retrieval')


def paths_of(name: str) -> tuple[str, str]:
    """Return a model's config and checkpoint."""
    stem = name if name in HEADS else f'{PLACE}/{name}'
    return f'{stem}.py', f'{stem}.pth'


@pytest.fixture(scope='module', autouse=True)
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp('project')
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv('LM4VE_CACHE', str(folder / 'cache'))
        write_runs(
            folder, 'vit_frozen', 'vit_mlp', 'videomae', 'pointbert', 'vectornet'
        )
        tiny.write_models(folder, *HEADS)
        yield folder


@functools.cache
def made(name: str, format: str, ending: str) -> str:
    """Export a model to a file, once; return its path."""
    run_lm4ve(
        'export', [*paths_of(name), '--format', format, '--out', f'made/{name}{ending}']
    )
    return f'made/{name}{ending}'


def test_onnxruntime_computes_the_same_at_other_batch_sizes():
    from mmpretrain.structures import DataSample

    session = onnxruntime.InferenceSession(made('vit_frozen', 'onnx', '.onnx'))
    config, checkpoint = paths_of('vit_frozen')
    model, _ = load_model(read_config(config), checkpoint, 'cpu')
    for count in (1, 5):
        pixels = torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8)
        samples = [DataSample() for _ in range(count)]
        samples = model.test_step(dict(inputs=pixels, data_samples=samples))
        (logits,) = session.run(None, {'images': pixels.numpy()})
        scores = torch.from_numpy(logits).softmax(-1)
        torch.testing.assert_close(scores, torch.stack([s.pred_score for s in samples]))
    about = json.loads(session.get_modelmeta().custom_metadata_map['lm4ve'])
    assert about['version'] == __version__
    for kind, held in (
        ('inputs', session.get_inputs()),
        ('outputs', session.get_outputs()),
    ):
        assert [(i['name'], i['shape']) for i in about[kind]] == [
            (i.name, i.shape) for i in held
        ]
        assert all(i['shape'][0] == 'batch' for i in about[kind])
    assert about['blocks']['neck.block'] == {**model.neck.block.source, 'source': ANY}
    assert str(about).count('/') == 0  # no folder of the machine that it was made on


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['videomae', 'pointbert', 'vectornet', 'vqa', 'retrieval']
)
def test_every_task_exports_a_file_equal_to_its_model(name):
    """The command compares the file with the path of a test, at batch sizes of its own."""
    program = torch.export.load(made(name, 'torch-export', '.pt2'))
    assert len(program.graph_signature.user_inputs) >= 1


@pytest.mark.slow
def test_what_is_said_of_inputs_and_answers():
    import onnx

    def told(name):
        (prop,) = onnx.load(made(name, 'onnx', '.onnx')).metadata_props
        return json.loads(prop.value)

    image = told('vit_frozen')
    assert image['classes'] == [str(i) for i in range(10)]
    assert image['normalization']['mean'] == [77.9] * 3
    assert image['inputs'][0]['shape'] == ['batch', 3, 8, 8]
    assert image['inputs'][0]['dtype'] == 'uint8'
    assert told('vqa')['answers'] == ['yes', 'no', 'red', 'blue', '2']
    assert [i['shape'] for i in told('vectornet')['inputs']][0] == [
        'batch',
        'agents',
        20,
        2,
    ]


@pytest.mark.parametrize('with_block', [True, False])
def test_weights_come_back_without_code(with_block):
    """Every tool that takes a checkpoint takes the file."""
    config, checkpoint = paths_of('vit_frozen')
    out = f'made/weights-{with_block}.safetensors'
    flags = ['--with-block'] if with_block else []
    run_lm4ve(
        'export', [config, checkpoint, '--format', 'safetensors', '--out', out, *flags]
    )
    from safetensors import safe_open

    with safe_open(out, 'pt') as file:
        names = list(file.keys())
        assert json.loads(file.metadata()['lm4ve'])['classes'][0] == '0'
    assert any(EMBEDDED_PREFIX in n for n in names) == with_block
    assert any(n.endswith(KEY) for n in names)
    run_lm4ve('export', [config, out, '--format', 'safetensors', '--out', 'made/again.safetensors',
                 '--overwrite', *flags])  # fmt: skip
    with safe_open(out, 'pt') as a, safe_open('made/again.safetensors', 'pt') as b:
        assert all(torch.equal(a.get_tensor(n), b.get_tensor(n)) for n in names)
    run_tool_here('test.py', config, out, '--work-dir', 'work')
    with pytest.raises(CheckpointError, match='MLPBlock'):
        run_lm4ve(
            'visualize',
            [paths_of('vit_mlp')[0], out, '--indices', '0', '--out-dir', 'drawn'],
        )
