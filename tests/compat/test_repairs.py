"""The installed releases still need every repair, and neighbors do not end our imports."""

import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pytest

from lm4ve import compat

pytest.importorskip('mmpretrain')
pytest.importorskip('mmaction')

_RUNNER, _HOOKS = 'mmengine.runner', 'mmengine.hooks'
_PRETRAIN, _ACTION = 'mmpretrain.models', 'mmaction.models'
_BLIP = 'models/multimodal/blip/language_model.py'
_VINDLU = 'models/multimodal/vindlu/modeling_bert.py'
_LAYER = 'models/utils/res_layer_extra_norm.py'
_CAPTURE = 'transformers/utils/output_capturing.py'
_LATE, _BEST = r"load_or_resume\(.*'before_run'", r"get_info\(\s*'best_ckpt'"
_ORDER = r'\.remove\(.*save_checkpoint\(\n'
_NO_MAP, _LOADS = 'not return_feat_map', r'load_state_dict\(state_dict, False\)'
#: Repair, what has the defect, a pattern in its source while it does, and one that is
#: not.
DEFECTS = [
    (
        'load_without_code',
        f'{_RUNNER}.checkpoint:load_from_local',
        r'torch_?\.?load\(',
        'only=True',
    ),
    (
        'download_without_code',
        f'{_RUNNER}.checkpoint:load_from_http',
        'load_url',
        'weights_only',
    ),
    (
        'explain_bad_files',
        f'{_RUNNER}.checkpoint:CheckpointLoader',
        '_loader',
        'safetensors',
    ),
    ('resume_without_code', f'{_RUNNER}:Runner.resume', 'Config.fromstring', None),
    (
        'resume_without_code',
        f'{_RUNNER}:FlexibleRunner.resume',
        'Config.fromstring',
        None,
    ),
    ('infer_without_code', 'mmengine.infer:BaseInferencer', 'Config.fromstring', None),
    (
        'infer_from_whole_checkpoints',
        'mmengine.infer:BaseInferencer',
        '_checkpoint',
        'strict',
    ),
    ('UnswappedEMAHook', f'{_HOOKS}:EMAHook.__init__', 'strict_load', 'swap|store'),
    ('average_before_loading', f'{_RUNNER}:FlexibleRunner.train', _LATE, None),
    ('delete_own_files_only', f'{_HOOKS}:CheckpointHook.before_train', _BEST, None),
    (
        'SavesBeforeDeleting',
        f'{_HOOKS}:CheckpointHook._save_checkpoint_with_step',
        _ORDER,
        None,
    ),
    (
        'starts_training',
        f'{_RUNNER}:Runner',
        '_train_loop',
        'def (is_training|resume_from)',
    ),
    ('format_once', 'mmengine.config:Config', r'FormatCode\(', 'cache'),
    ('import_without_extras', 'mmpretrain/' + _BLIP, 'apply_chunking_to_forward', None),
    ('import_without_extras', 'mmpretrain/' + _LAYER, 'from mmdet', 'def __getattr__'),
    (
        'import_layer_of_mmdet',
        'mmpretrain/' + _LAYER,
        'except ImportError',
        'def __getattr__',
    ),
    (
        'refuse_unbuilt_neck',
        f'{_PRETRAIN}:HuggingFaceClassifier.__init__',
        'kwargs',
        'neck',
    ),
    ('refuse_unbuilt_neck', f'{_PRETRAIN}:TimmClassifier.__init__', 'kwargs', 'neck'),
    (
        'load_plain_encoders',
        f'{_PRETRAIN}:ImageClassifier.__init__',
        'state_dict',
        'neck.*state',
    ),
    (
        'load_whole_checkpoints',
        'mmpretrain.apis:get_model',
        'load_checkpoint',
        'strict',
    ),
    (
        'load_whole_checkpoints',
        'mmpretrain.apis.base:BaseInferencer',
        'load_checkpoint',
        'strict',
    ),
    (
        'load_whole_checkpoints',
        'mmaction.apis:init_recognizer',
        'load_checkpoint',
        'strict',
    ),
    (
        'import_without_missing_parts',
        'mmaction/' + _VINDLU,
        'apply_chunking_to_forward',
        None,
    ),
    (
        'drop_unused_norm',
        f'{_ACTION}.backbones:VisionTransformer.__init__',
        'fc_norm',
        _NO_MAP,
    ),
    (
        'build_recognizers',
        f'{_ACTION}:BaseRecognizer.__init__',
        "'ActionDataPreprocessor'",
        None,
    ),
    (
        'accept_one_map',
        f'{_ACTION}:Recognizer2D.extract_feat',
        r'backbone\.get\(.*each in x',
        None,
    ),
    (
        'import_without_operators',
        'mmcv.utils.ext_loader:load_ext',
        'import_module',
        'except',
    ),
    (
        'keep_names',
        'transformers.trainer:Trainer._load_from_checkpoint',
        _LOADS,
        'conversion',
    ),
    ('capture_afterwards', _CAPTURE, r'forward_hook\(output_capturing_hook\)', None),
]


def source_of(place: str) -> str:
    """Return the source of a file of a package, or of an object in a module."""
    if '/' in place:  # a module that does not import
        package, _, file = place.partition('/')
        folder = Path(importlib.util.find_spec(package).origin).parent
        return (folder / file).read_text(encoding='utf-8')
    module, _, name = place.partition(':')
    found = attrgetter(name)(importlib.import_module(module))
    return inspect.getsource(inspect.unwrap(found))


@pytest.mark.parametrize('name, place, there, absent', DEFECTS)
def test_installed_release_has_the_defect(name, place, there, absent):
    package = place.partition('.')[0].partition('/')[0].partition(':')[0]
    pytest.importorskip(package)
    if is_fork(package):
        pytest.skip('a fork, which mends in its own time')
    text = source_of(place)
    assert re.search(there, text, re.DOTALL) and not (
        absent and re.search(absent, text)
    ), (
        f'{place} was mended upstream: raise the lower bound of its version and delete {name}'
    )


def is_fork(package: str) -> bool:
    """Return whether a package comes from OneDL's distribution of the same import name."""
    folder = Path(importlib.util.find_spec(package).origin).parents[1]
    return any(folder.glob(f'onedl_{package}-*'))


#: Importing these rooms registers the repairs that need them.
for _room in ('necks', 'runner'):
    importlib.import_module(f'lm4ve.{_room}')
REPAIRS = [pytest.param(repair, id=repair.target) for repair in compat.REPAIRS]


@pytest.mark.parametrize('repair', REPAIRS)
def test_what_a_repair_replaces_is_there(repair):
    package = repair.trigger.partition('.')[0]
    pytest.importorskip(package)
    assert compat.holder_of(repair.target) is not None or is_fork(package)


@pytest.mark.parametrize('repair', REPAIRS)
def test_a_name_that_is_missing_is_passed_over_in_silence(monkeypatch, capsys, repair):
    module, _, name = repair.target.partition(':')
    without_name = ModuleType(module)
    if hasattr(without_name, name):
        return  # a module's own name, for a repair of what it imports
    monkeypatch.setitem(sys.modules, module, without_name)
    compat.apply(repair)
    assert vars(without_name) == vars(ModuleType(module))
    assert capsys.readouterr() == ('', '')


def test_a_repair_of_what_was_imported_before_runs_at_once():
    """Importing a room late, after the library, must not leave the library as it is."""
    library = ModuleType('a_library')
    library.defect = True
    room = ModuleType('a_room')
    room.mend = lambda holder: setattr(holder, 'defect', False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'a_library', library)
        patch.setitem(sys.modules, 'a_room', room)
        patch.setattr(compat, 'REPAIRS', [])
        compat.register('a_library', 'a_library:defect', 'a_room:mend')
    assert library.defect is False


#: Modules with repairs that other code calls or derives from.
USED_DIRECTLY = (
    'mmengine_runner_state',
    'mmengine_save_order',
    'mmengine_swapped_average',
    'transformers_capture',
    'transformers_trainer_names',
)


def test_every_repair_names_versions_and_its_end():
    functions = [repair.function.partition(':') for repair in compat.REPAIRS]
    modules = {module for module, _, _ in functions}
    modules |= {f'lm4ve.compat.{name}' for name in USED_DIRECTLY}
    repairs = {}
    for module in modules:
        for name, value in vars(importlib.import_module(module)).items():
            if re.search(r'ay\s+go', getattr(value, '__doc__', None) or ''):
                repairs[name] = value.__doc__
    assert all(re.search(r'\d+\.\d+\.\d+', text) for text in repairs.values())
    assert {*repairs} == {row[0] for row in DEFECTS}
    assert {*repairs} >= {name for _, _, name in functions}


def test_every_file_of_the_room_is_in_use():
    files = {path.stem for path in Path(compat.__file__).parent.glob('*.py')}
    registered = set()
    for repair in compat.REPAIRS:
        module, _, _ = repair.function.partition(':')
        registered.add(module.removeprefix('lm4ve.compat.'))
    assert files - {'__init__'} <= registered | {*USED_DIRECTLY}


def test_private_members_of_mmengine_stay_in_compat():
    private = re.compile(
        r'_save_checkpoint_with_step|_save_best_checkpoint|_swap_ema_\w+|\._locations'
        r'|\._models_dict|\b_load_checkpoint\(|runner\._(?!_)\w+'
    )
    package = Path(compat.__file__).parents[1]
    found = [
        f'{path.relative_to(package)}: {name}'
        for path in package.rglob('*.py')
        if path.parent.name != 'compat'
        for name in private.findall(path.read_text(encoding='utf-8'))
    ]
    assert not found


SCRIPT = """
import lm4ve, mmpretrain.models, mmpretrain.datasets
from mmpretrain.registry import MODELS
assert lm4ve.wrap
MODELS.build(dict(type='VisionTransformer', arch='deit-tiny', img_size=32))
assert MODELS.get('LLMBlockNeck')
"""


@pytest.mark.slow
def test_mmpretrain_imports_beside_pycocotools_and_bitsandbytes(tmp_path, monkeypatch):
    """Fake packages: their presence is what mmpretrain and MMEngine's optimizers ask for."""
    files = {
        f'pycocotools/{name}.py': 'class COCO: pass\n' for name in ('__init__', 'coco')
    }
    files['bitsandbytes/__init__.py'] = (
        'from types import SimpleNamespace\nfrom torch.optim import Adam\n'
        "optim = SimpleNamespace(Adam=Adam, LAMB=type('LAMB', (Adam,), {}))\n"
    )
    about = 'Metadata-Version: 2.1\nName: pycocotools\nVersion: 2.0.8\n'
    files['pycocotools-2.0.8.dist-info/METADATA'] = about
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT], check=True)


@pytest.mark.slow
def test_imports_are_quiet_and_leave_mmdet_for_who_wants_it():
    pytest.importorskip('mmdet')
    lines = (
        'import sys, lm4ve, mmpretrain.models, mmpretrain.datasets, pkg_resources',
        "assert not {'mmdet', 'sklearn'} & {*sys.modules} and utils.ResLayerExtraNorm is None",
        'import mmdet.models',
        'from mmdet.registry import MODELS',
        "assert MODELS.get('ResLayerExtraNorm') is utils.ResLayerExtraNorm is not None",
    )
    script = '\n'.join(lines).replace('utils.', 'mmpretrain.models.utils.')
    done = subprocess.run(
        [sys.executable, '-c', script], text=True, capture_output=True
    )
    assert not done.returncode and not done.stderr, done.stderr
