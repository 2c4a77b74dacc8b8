"""The installed releases still need every repair, and neighbors do not end our imports."""

import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lm4ve import compat

pytest.importorskip('mmpretrain')
pytest.importorskip('mmaction')


@dataclass(frozen=True)
class Defect:
    """What a repair mends, and how the source of a release shows it.

    Attributes:
        repair (str): The name of the function or class.
        place (str): What has the defect, as ``module:name``, or a file of a package
            that does not import.
        there (str): A pattern in the source while it has the defect.
        absent (str, optional): A pattern that comes into the source with the mending.
    """

    repair: str
    place: str
    there: str
    absent: str | None = None


DEFECTS = [
    Defect(
        'load_without_code',
        'mmengine.runner.checkpoint:load_from_local',
        r'torch_?\.?load\(',
        'only=True',
    ),
    Defect(
        'download_without_code',
        'mmengine.runner.checkpoint:load_from_http',
        'load_url',
        'weights_only',
    ),
    Defect(
        'explain_bad_files',
        'mmengine.runner.checkpoint:CheckpointLoader',
        '_loader',
        'safetensors',
    ),
    Defect(
        'resume_without_code',
        'mmengine.runner:Runner.resume',
        'Config.fromstring',
    ),
    Defect(
        'resume_without_code',
        'mmengine.runner:FlexibleRunner.resume',
        'Config.fromstring',
    ),
    Defect(
        'infer_without_code',
        'mmengine.infer:BaseInferencer',
        'Config.fromstring',
    ),
    Defect(
        'infer_from_whole_checkpoints',
        'mmengine.infer:BaseInferencer',
        '_checkpoint',
        'strict',
    ),
    Defect(
        'UnswappedEMAHook',
        'mmengine.hooks:EMAHook.__init__',
        'strict_load',
        'swap|store',
    ),
    Defect(
        'average_before_loading',
        'mmengine.runner:FlexibleRunner.train',
        r"load_or_resume\(.*'before_run'",
    ),
    Defect(
        'average_after_updates',
        'mmengine.hooks:EMAHook.after_train_iter',
        'update_parameters',
        'should_update',
    ),
    Defect(
        'save_after_updates',
        'mmengine.hooks:CheckpointHook.after_train_iter',
        'every_n_train_iters',
        'should_update',
    ),
    Defect(
        'count_from_an_update',
        'mmengine.optim:OptimWrapper.initialize_count_status',
        '_inner_count = init_counts',
    ),
    Defect(
        'scale_base_rate',
        'mmengine.runner:Runner.scale_lr',
        r"group\['lr'\] \* ratio",
        'base_param_settings',
    ),
    Defect(
        'delete_own_files_only',
        'mmengine.hooks:CheckpointHook.before_train',
        r"get_info\(\s*'best_ckpt'",
    ),
    Defect(
        'SavesBeforeDeleting',
        'mmengine.hooks:CheckpointHook._save_checkpoint_with_step',
        r'\.remove\(.*save_checkpoint\(\n',
    ),
    Defect(
        'starts_training',
        'mmengine.runner:Runner',
        '_train_loop',
        'def (is_training|resume_from)',
    ),
    Defect(
        'format_once',
        'mmengine.config:Config',
        r'FormatCode\(',
        'cache',
    ),
    Defect(
        'collect_by_group',
        'mmengine.dist.dist:collect_results_cpu',
        r'\.dist_test',
    ),
    Defect(
        'copy_without_waiting',
        'mmengine.model:BaseDataPreprocessor.__init__',
        r'non_blocking: Optional\[bool\] = False',
    ),
    Defect(
        'import_without_extras',
        'mmpretrain/models/multimodal/blip/language_model.py',
        'apply_chunking_to_forward',
    ),
    Defect(
        'import_without_extras',
        'mmpretrain/models/utils/res_layer_extra_norm.py',
        'from mmdet',
        'def __getattr__',
    ),
    Defect(
        'import_layer_of_mmdet',
        'mmpretrain/models/utils/res_layer_extra_norm.py',
        'except ImportError',
        'def __getattr__',
    ),
    Defect(
        'refuse_unbuilt_neck',
        'mmpretrain.models:HuggingFaceClassifier.__init__',
        'kwargs',
        'neck',
    ),
    Defect(
        'refuse_unbuilt_neck',
        'mmpretrain.models:TimmClassifier.__init__',
        'kwargs',
        'neck',
    ),
    Defect(
        'convert_without_reading',
        'mmpretrain.models.losses.utils:convert_to_one_hot',
        r'\.item\(\)',
    ),
    Defect(
        'load_plain_encoders',
        'mmpretrain.models:ImageClassifier.__init__',
        'state_dict',
        'neck.*state',
    ),
    Defect(
        'load_whole_checkpoints',
        'mmpretrain.apis:get_model',
        'load_checkpoint',
        'strict',
    ),
    Defect(
        'load_whole_checkpoints',
        'mmpretrain.apis.base:BaseInferencer',
        'load_checkpoint',
        'strict',
    ),
    Defect(
        'load_whole_checkpoints',
        'mmaction.apis:init_recognizer',
        'load_checkpoint',
        'strict',
    ),
    Defect(
        'import_without_missing_parts',
        'mmaction/models/multimodal/vindlu/modeling_bert.py',
        'apply_chunking_to_forward',
    ),
    Defect(
        'drop_unused_norm',
        'mmaction.models.backbones:VisionTransformer.__init__',
        'fc_norm',
        'not return_feat_map',
    ),
    Defect(
        'widen_bfloat16_scores',
        'mmaction.models.heads:BaseHead.loss_by_feat',
        r'cls_scores\.detach\(\)\.cpu\(\)\.numpy\(\)',
    ),
    Defect(
        'build_recognizers',
        'mmaction.models:BaseRecognizer.__init__',
        "'ActionDataPreprocessor'",
    ),
    Defect(
        'accept_one_map',
        'mmaction.models:Recognizer2D.extract_feat',
        r'backbone\.get\(.*each in x',
    ),
    Defect(
        'compare_by_method',
        'mmaction.evaluation:top_k_accuracy',
        r'logical_or\.reduce',
    ),
    Defect(
        'restore_removed_names',
        'mmaction.evaluation.functional.accuracy:average_recall_at_avg_proposals',
        r'np\.trapz',
    ),
    Defect(
        'restore_removed_names',
        'mmpretrain.evaluation.metrics.retrieval:RetrievalRecall.calculate',
        r'np\.in1d',
    ),
    Defect(
        'plain_rates',
        'mmcv.cnn.bricks.drop:DropPath.__init__',
        r'self\.drop_prob = drop_prob',
    ),
    Defect(
        'resize_by_kernels',
        'mmcv.image.geometric:imresize',
        r'pil_image\.resize\(',
    ),
    Defect(
        'decode_without_notes',
        'mmcv.image.io:imfrombytes',
        r'cv2\.imdecode\(img_np',
        'iCCP|chunk',
    ),
    Defect(
        'import_without_operators',
        'mmcv.utils.ext_loader:load_ext',
        'import_module',
        'except',
    ),
    Defect(
        'keep_names',
        'transformers.trainer:Trainer._load_from_checkpoint',
        r'load_state_dict\(state_dict, False\)',
        'conversion',
    ),
    Defect(
        'capture_afterwards',
        'transformers/utils/output_capturing.py',
        r'forward_hook\(output_capturing_hook\)',
    ),
]


def source_of(place: str) -> str:
    """Return the source of a file of a package, or of an object in a module."""
    if '/' in place:  # a module that does not import
        package, _, file = place.partition('/')
        folder = Path(importlib.util.find_spec(package).origin).parent
        return (folder / file).read_text(encoding='utf-8')
    module, _, name = place.partition(':')
    target = attrgetter(name)(importlib.import_module(module))
    return inspect.getsource(inspect.unwrap(target))


@pytest.mark.parametrize('defect', DEFECTS, ids=lambda defect: defect.place)
def test_installed_release_has_the_defect(defect):
    package = re.match(r'\w+', defect.place)[0]
    pytest.importorskip(package)
    if is_fork(package):
        pytest.skip('a fork, which mends in its own time')
    source = source_of(defect.place)
    is_mended = not re.search(defect.there, source, re.DOTALL)
    if defect.absent is not None and re.search(defect.absent, source):
        is_mended = True
    assert not is_mended, (
        f'{defect.place} was mended upstream: raise the lower bound of its version and '
        f'delete {defect.repair}'
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


def test_metrics_that_call_removed_names_of_numpy_run():
    from mmaction.evaluation.functional.accuracy import average_recall_at_avg_proposals
    from mmpretrain.evaluation import RetrievalRecall

    compat.activate()
    found = RetrievalRecall.calculate(
        [[2, 0], [1, 2]], [[0], [0]], (1, 2), pred_indices=True, target_indices=True
    )
    assert [float(value) for value in found] == [0, 50]
    # One video, whose one proposal is the truth: all recall is at the last of 100 numbers
    # of proposals, 0 to 1, so that the area is that of half an interval.
    proposals = dict(a=np.array([[0.0, 1.0, 0.9]]))
    truth = dict(a=np.array([[0.0, 1.0]]))
    *_, area = average_recall_at_avg_proposals(truth, proposals, 1)
    assert area == pytest.approx(100 * 0.01 / 2)


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
        compat.activate()
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


def repairs_by_name() -> dict[str, str]:
    """Return the docstring of each repair: of what says when it may go."""
    modules = {repair.function.partition(':')[0] for repair in compat.REPAIRS}
    for name in USED_DIRECTLY:
        modules.add(f'lm4ve.compat.{name}')
    repairs = {}
    for module in modules:
        for name, value in vars(importlib.import_module(module)).items():
            text = getattr(value, '__doc__', None) or ''
            if re.search(r'ay\s+go', text):
                repairs[name] = text
    return repairs


def test_every_repair_names_versions_and_its_end():
    repairs = repairs_by_name()
    for name, text in repairs.items():
        assert re.search(r'\d+\.\d+\.\d+', text), name
    assert set(repairs) == {defect.repair for defect in DEFECTS}
    for repair in compat.REPAIRS:
        assert repair.function.partition(':')[2] in repairs


def test_every_file_of_the_room_is_in_use():
    used = set(USED_DIRECTLY)
    for repair in compat.REPAIRS:
        module, _, _ = repair.function.partition(':')
        used.add(module.removeprefix('lm4ve.compat.'))
    files = {path.stem for path in Path(compat.__file__).parent.glob('*.py')}
    assert files - used == {'__init__'}


def test_private_members_of_mmengine_stay_in_compat():
    private = re.compile(
        r'_save_checkpoint_with_step|_save_best_checkpoint|_swap_ema_\w+|\._locations'
        r'|\._models_dict|\b_load_checkpoint\(|runner\._(?!_)\w+'
    )
    projects = Path(compat.__file__).parents[2]
    for path in projects.rglob('*.py'):
        if path.parent.name != 'compat':
            names = private.findall(path.read_text(encoding='utf-8'))
            assert not names, path.relative_to(projects)


SCRIPT = """
import lm4ve.openmmlab, mmpretrain.models, mmpretrain.datasets
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
        'import sys, lm4ve.openmmlab, mmpretrain.models, mmpretrain.datasets, pkg_resources',
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
