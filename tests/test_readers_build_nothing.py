"""Nothing that is read from a file of data reaches a registry, which would run what it names.

All places of the package that read JSON, YAML or Python's literals, the metadata of
safetensors, or a checkpoint stand in :data:`READERS`; a new one needs a line. Each that a
stranger's file can reach is run with a hostile ``type`` in every dict of the file.
"""

import ast
import contextlib
import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import Registry
from safetensors.torch import save_file
from torch import nn

import llm4seg
import lm4ve
from lm4ve.errors import UserError
from tests.helpers.hostile_types import everywhere, hostile

PACKAGE = Path(lm4ve.__file__).parent
PROJECT = Path(llm4seg.__file__).parent
KINDS = ['os.system', 'subprocess.getoutput', 'scope']
#: Calls by which a module reads, as it writes them.
CALLS = {
    'json.load',
    'json.loads',
    'ast.literal_eval',
    'torch.load',
    'Config.fromfile',
    'Config.fromstring',
    'AutoTokenizer.from_pretrained',
    'AutoImageProcessor.from_pretrained',
    'read_json',
    'safe_open',
    'load_file',
    'load',
    'safe_load',
    'file.metadata',
}
#: Not from a file: plain data that are brought into the form of JSON.
COPIES = 'json.loads(json.dumps('

#: A name in :data:`SAMPLES`, and the readers that it runs.
READERS = {
    'folder of save_pretrained': [
        'necks/folder_config.py:read_config',
        'necks/pretrained.py:_read_weights',
    ],
    'record': ['blocks/record_text.py:decode_json'],
    'weight-index': [
        'llm/readers.py:_read_weight_map',
        'llm/readers.py:open_file',
        'llm/readers.py:_read',
    ],
    'hf-config': ['llm/checkpoint.py:read_config_file'],
    'checkpoint': [
        'llm/torch_files.py:load',
        'llm/torch_files.py:_load',
        'runner/checkpoint_files.py:read_checkpoint',
    ],
    'safetensors metadata': ['llm/torch_files.py:read_safetensors'],
    'stores of lm4ve try': [
        'files.py:read_json',
        'study/heads/precision.py:choose_dtype',
        'study/report.py:claim_folder',
        'study/tokens/token_file.py:open_token_file',
    ],
    'recipe': ['data/generated.py:write_once'],
    'shard index': [
        'data/shards.py:read_samples',
        'data/shards.py:read_left_out',
        'data/shard_writing.py:verify_shards',
    ],
    'job': [
        'study/store.py:read_result',
        'study/store.py:read_spec',
        'study/store.py:_delete_all_but_training',
        'study/trainings/training.py:training_config',
    ],
    'config in JSON': ['runner/config/reading.py:read_config'],
    'dataset.json of MSD': ['llm4seg/datasets/decathlon.py:_read_classes'],
    'map of Argoverse 2': ['tasks/motion/datasets/argoverse.py:read_map'],
    'regions': ['tasks/motion/models/regions.py:Regions.load'],
    'answers': [
        'tasks/rooms/models/heads.py:count_answers',
        'tasks/vqa/datasets/answers.py:read_vocabulary',
    ],
    'tokenizer': ['text/preprocessor.py:load_tokenizer'],
    'encoder of transformers': [
        'study/tokens/encoders/transformers_models.py:load_transformers'
    ],
    'vqa-questions': [
        'text/annotation_files.py:read_json',
        'tasks/vqa/datasets/vqa.py:read_official',
    ],
    'vqa-jsonl': ['text/annotation_files.py:_json_rows'],
    'visual-genome': ['tasks/vqa/datasets/vqa.py:VisualGenomeQA.load_questions'],
    'karpathy': ['tasks/vqa/datasets/retrieval.py:KarpathyRetrieval.load_images'],
    'sqa3d-questions': ['tasks/rooms/datasets/questions.py:_read'],
}
#: Readers of what no stranger writes -> why.
OWN_FILES = {
    'files.py:_read_holder': 'who holds a lock, as text',
    'study/store.py:Store.failure': 'why a job failed, as text',
    'study/slurm.py:SlurmPool._task_of': 'compares the number of a task',
    'study/earlier.py:_read_facts': 'a report, from which nothing is built',
    'study/report_files.py:read_facts': 'a report, from which nothing is built',
    'study/tokens/features.py:load_features': 'labels and splits, as plain arrays',
    'data/shard_writing.py:_write_shard': 'a part of the index it goes on to write',
    'release/formats.py:_check_metadata': 'parses, and drops what it parsed',
    'compat/mmengine_pickles.py:_TorchWithSafeLoad.load': 'calls torch_files.load',
    'runner/cfg_options.py:_bare_word': 'the command line, which the user types',
    'tasks/motion/datasets/cache.py:unpack': 'numbers of a cache, by name',
    'tasks/motion/datasets/cache.py:SceneCache._open': 'offsets of a cache, by name',
    'tasks/vqa/datasets/easy_vqa.py:EasyVQA.load_questions': 'of a package, by its hash',
    'zoo/__init__.py:all_models': 'the list of models in the package itself',
}


def sites() -> Iterator[str]:
    """Yield the places of the package that read: file, and function in it."""
    for file in sorted([*PACKAGE.rglob('*.py'), *PROJECT.rglob('*.py')]):
        tree = ast.parse(file.read_text(encoding='utf-8'))
        imported = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                imported.update(alias.asname or alias.name for alias in node.names)
            elif isinstance(node, ast.FunctionDef):
                imported.add(node.name)
        name = file.relative_to(PACKAGE.parent).as_posix().removeprefix('lm4ve/')
        yield from _sites_in(tree, f'{name}:', imported)


def _sites_in(tree: ast.AST, place: str, known: set[str]) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        inner = place
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            inner = f'{place}{node.name}.'
        elif isinstance(node, ast.Call):
            call = ast.unparse(node)
            function = ast.unparse(node.func)
            is_known = isinstance(node.func, ast.Attribute) or function in known
            if function in CALLS and is_known and not call.startswith(COPIES):
                yield place.removesuffix('.')
        yield from _sites_in(node, inner, known)


def test_every_reader_of_the_package_has_a_line():
    listed = [site for group in READERS.values() for site in group]
    assert len(listed) == len(set(listed))
    assert {*listed, *OWN_FILES} == set(sites())


# ------------------------------------------------------------------------ samples
#: Writes a whole file into a folder; returns its content, a function that writes a
#: changed one, and a function that reads it.
Sample = tuple[Any, Callable[[Any], object], Callable[[], object]]


def as_json(path: Path, content: Any, read: Callable[[], object]) -> Sample:
    path.parent.mkdir(parents=True, exist_ok=True)
    return content, lambda changed: path.write_text(json.dumps(changed)), read


def saved_folder(folder: Path) -> Sample:
    from tests.helpers.necks.encoder import Encoder, wrapped

    block = dict(type='MLPBlock', embed_dims=8)
    lm4ve.save_pretrained(wrapped(block=block), folder)
    path = folder / 'lm4ve_config.json'
    content = json.loads(path.read_text())
    return as_json(path, content, lambda: lm4ve.from_pretrained(Encoder(), folder))


def record(folder: Path) -> Sample:
    from lm4ve.blocks.record_text import KEY, encode_record
    from lm4ve.necks import LLMBlockNeck
    from tests.helpers.models import BLOCK

    neck = LLMBlockNeck(8, BLOCK)
    state = dict(neck.state_dict())
    changed: dict[str, Any] = {}

    def write(content: Any) -> None:
        changed.update(state)
        changed[f'block.{KEY}'] = encode_record(content)

    return neck.block.source, write, lambda: neck.load_state_dict(dict(changed))


def checkpoint(folder: Path) -> Sample:
    from lm4ve.runner.checkpoint_files import read_checkpoint, select_state
    from lm4ve.runner.resume import check_whole

    path = folder / 'epoch_1.pth'
    content = dict(
        meta=dict(epoch=1, iter=1, cfg='x = 1', dataset_meta=dict(classes=['a'])),
        state_dict=dict(weight=torch.ones(1)),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
        optimizer=dict(state={}, param_groups=[dict(lr=0.1)]),
        param_schedulers=[dict(last_step=0)],
    )

    def read() -> None:
        stored = read_checkpoint(path)
        with contextlib.suppress(UserError):
            check_whole(str(path))
        select_state(stored)

    return content, lambda changed: torch.save(changed, path), read


def safetensors_metadata(folder: Path) -> Sample:
    from lm4ve.llm.torch_files import read_safetensors

    path = folder / 'model.safetensors'

    def write(content: Any) -> None:
        save_file({'w': torch.ones(1)}, path, dict(lm4ve=json.dumps(content)))

    content = dict(classes=['a'], config=dict(model=dict(type='x')))
    return content, write, lambda: read_safetensors(path)


def stores_of_try(folder: Path) -> Sample:
    from lm4ve.study import report
    from lm4ve.study.heads import precision
    from lm4ve.study.tokens import token_file

    content = dict(dtype='float32', shape=[1, 2, 3], hashes=[])
    files = [precision.RECORD, report.OWNER, token_file.RECORD]
    (folder / report.FILES[0]).write_text('')

    def write(changed: Any) -> None:
        for file in files:
            (folder / file).write_text(json.dumps(changed))

    def read() -> None:
        readers = [
            lambda: precision.choose_dtype('float32', folder),
            lambda: report.claim_folder(folder, dict(encoder='a')),
            lambda: token_file.open_token_file(folder),
        ]
        for reader in readers:
            with contextlib.suppress(UserError):
                reader()

    return content, write, read


def recipe(folder: Path) -> Sample:
    from lm4ve.data.generated import RECIPE, write_once

    content = dict(seed=0, sizes=dict(train=1))
    read = lambda: write_once(folder, content, 'data', print)  # noqa: E731
    return as_json(folder / RECIPE, content, read)


def shard_index(folder: Path) -> Sample:
    from lm4ve.data.shard_writing import verify_shards
    from lm4ve.data.shards import read_left_out, read_samples

    path = folder / 'train.index.json'
    (folder / 'a.tar').write_bytes(b'')
    shard = dict(name='a.tar', sha256='0', size=0, samples=[dict(key='0', label=0)])

    def read() -> None:
        for reader in (verify_shards, read_samples, read_left_out):
            with contextlib.suppress(Exception):
                reader(path)

    return as_json(path, dict(shards=[shard], classes=['a']), read)


def job(folder: Path) -> Sample:
    """A training, in whose folder a stranger has left a specification."""
    from lm4ve.study.job import Job
    from lm4ve.study.run_job import run_job
    from lm4ve.study.store import Store

    store = Store(folder)
    config = folder / 'config.py'
    config.write_text("model = dict(type='ToyOfNobody')\n")
    one = Job('training', 'a', 'test', None, 0, '0123456789abcdef', {})
    place = store.folder_of(one)
    options = {'model': dict(type='ToyOfNobody', neck=dict(type='x'))}
    content = dict(config=str(config), options=options, keep_checkpoints=False)

    def write(changed: Any) -> None:
        place.mkdir(parents=True, exist_ok=True)
        if isinstance(changed.get('options'), dict):
            changed['options'] = repr(changed['options'])
        text = json.dumps(dict(key=one.key, kind='training', spec=changed))
        (place / 'spec.json').write_text(text)
        (place / 'result.json').write_text(text)

    def read() -> None:
        assert store.result(one) is None
        with contextlib.suppress(UserError, LookupError):
            run_job(place)
        with contextlib.suppress(UserError):
            store.prepare(one)

    return content, write, read


def config_in_json(folder: Path) -> Sample:
    from lm4ve.apis import get_model

    content = dict(model=dict(type='ResNet', neck=dict(type='x')), default_scope=None)
    path = folder / 'config.json'

    def read() -> None:
        with pytest.raises(UserError, match='is no Python file'):
            get_model(str(path))

    return as_json(path, content, read)


def decathlon(folder: Path) -> Sample:
    from llm4seg.datasets.decathlon import _read_classes

    path = folder / 'dataset.json'
    content = dict(labels={'0': 'background'}, training=[dict(image='a')])
    return as_json(path, content, lambda: _read_classes(path))


def argoverse2_map(folder: Path) -> Sample:
    from lm4ve.tasks.motion.datasets.argoverse import read_map

    line = [dict(x=0.0, y=0.0, z=0.0), dict(x=1.0, y=0.0, z=0.0)]
    segment = dict(
        left_lane_boundary=line, right_lane_boundary=line, is_intersection=False
    )
    path = folder / 'log_map_archive_a.json'
    content = dict(lane_segments={'1': segment})
    return as_json(path, content, lambda: read_map(path))


def regions(folder: Path) -> Sample:
    from lm4ve.tasks.motion.models.regions import Regions

    path = folder / 'regions.json'
    content = dict(centres=[[0, 0]], hulls=[[[0, 0], [1, 0], [0, 1]]])
    return as_json(path, content, lambda: Regions.load(str(path)))


def answers(folder: Path) -> Sample:
    from lm4ve.tasks.rooms.models.heads import count_answers
    from lm4ve.tasks.vqa.datasets.answers import read_vocabulary

    path = folder / 'answers.json'

    def read() -> None:
        for reader in (lambda p: count_answers(p, 'corpus'), read_vocabulary):
            with contextlib.suppress(UserError):
                reader(path)

    return as_json(path, dict(yes=1, no=2), read)


def tokenizer(folder: Path) -> Sample:
    from lm4ve.text.preprocessor import load_tokenizer
    from tests.helpers.vqa.tiny import write_tokenizer

    write_tokenizer(folder)
    path = folder / 'tokenizer_config.json'
    content = json.loads(path.read_text())
    return as_json(path, content, lambda: load_tokenizer(str(folder)))


def encoder_of_transformers(folder: Path) -> Sample:
    from transformers import ViTConfig, ViTImageProcessor

    from lm4ve.study.tokens.encoders.transformers_models import load_transformers

    sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1)
    ViTConfig(
        num_attention_heads=2, image_size=8, patch_size=4, **sizes
    ).save_pretrained(folder)
    ViTImageProcessor(size=dict(height=8, width=8)).save_pretrained(folder)
    path = folder / 'preprocessor_config.json'
    content = json.loads(path.read_text())
    read = lambda: load_transformers(str(folder), False, 8)  # noqa: E731
    return as_json(path, content, read)


SAMPLES: dict[str, Callable[[Path], Sample]] = {
    'folder of save_pretrained': saved_folder,
    'record': record,
    'checkpoint': checkpoint,
    'safetensors metadata': safetensors_metadata,
    'stores of lm4ve try': stores_of_try,
    'recipe': recipe,
    'shard index': shard_index,
    'job': job,
    'config in JSON': config_in_json,
    'dataset.json of MSD': decathlon,
    'map of Argoverse 2': argoverse2_map,
    'regions': regions,
    'answers': answers,
    'tokenizer': tokenizer,
    'encoder of transformers': encoder_of_transformers,
}


def fuzzed_sample(name: str) -> Sample:
    """A sample of ``tools/dev/fuzz_readers.py``, in the current folder."""
    sys.path.insert(0, str(Path(__file__).parents[1] / 'tools/dev'))
    try:
        import fuzz_readers
    finally:
        sys.path.pop(0)
    path, read = fuzz_readers.READERS[name](name)
    text = path.read_text()
    if path.suffix == '.jsonl':
        content: Any = [json.loads(line) for line in text.splitlines()]

        def write(changed: Any) -> None:
            path.write_text('\n'.join(json.dumps(row) for row in changed) + '\n')

        return content, write, read
    return json.loads(text), lambda changed: path.write_text(json.dumps(changed)), read


@pytest.fixture
def built(monkeypatch) -> list[Any]:
    """What any registry of MMEngine was asked to build."""
    seen: list[Any] = []
    build = Registry.build

    def spy(registry: Registry, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(cfg)
        return build(registry, cfg, *args, **kwargs)

    monkeypatch.setattr(Registry, 'build', spy)
    return seen


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', READERS)
def test_no_registry_builds_what_a_file_names(name, kind, tmp_path, monkeypatch, built):
    folder, marker = tmp_path / 'files', tmp_path / 'RAN'
    folder.mkdir()
    monkeypatch.chdir(folder)
    make = SAMPLES.get(name)
    content, write, read = make(folder) if make else fuzzed_sample(name)
    write(copy.deepcopy(content))
    read()  # the whole file is read
    entries = hostile(kind, marker)
    count = 0
    for changed in everywhere(content, entries):
        write(changed)
        # Whatever it is refused with: the fuzzer counts crashes.
        with contextlib.suppress(Exception):
            read()
        assert not marker.exists()
        count += 1
    assert count >= 2
    names = [cfg.get('type') for cfg in built if isinstance(cfg, dict)]
    assert entries['type'] not in names


def test_a_reader_that_builds_is_found(tmp_path, built):
    """What the test above looks for."""
    from mmengine.registry import MODELS

    entries = hostile('os.system', tmp_path / 'RAN')
    MODELS.build(dict(entries))
    assert (tmp_path / 'RAN').exists()
    assert built[0]['type'] == 'os.system'
    assert not isinstance(built[0], nn.Module)
