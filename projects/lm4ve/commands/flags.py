"""The flags of every command, apart from what it runs, so that ``--help`` answers at once."""

import argparse
import ast
import re
from pathlib import Path

from lm4ve.runner.flags import (
    CHECKPOINT,
    CONFIG,
    EVALUATE,
    INSPECT,
    RUN,
    STRICT,
    Flags,
    at_least,
    build_parser,
)
from lm4ve.tasks import all_tasks

_YES = dict(action='store_true')
#: What ``--amp`` without a type is: MMEngine's ``AmpOptimWrapper``, and fp32 without a GPU.
PLAIN_AMP = True
_AMP = 'mixed precision in bf16 or fp16, on any device; without a value, fp16 on a GPU only'
_RESUME = (
    'a checkpoint to resume from; without a value, the newest whole one in the work '
    "directory; 'auto': that one, or the beginning if there is none; with the learning rate "
    'and weight decay of the checkpoint: others are refused'
)
_SCALE = (
    'scale the learning rate by processes x batch_size / auto_scale_lr.base_batch_size; a '
    'number of accumulative_counts does not count'
)
_DRY_RUN = (
    'check config, weights, data, two steps, memory, disk and time; start no training'
)
_TTA = "test-time augmentation by the config's tta_model and tta_pipeline; for images, flips"
_HALF = 'store frozen fp32 tensors in 16 bits where that loses nothing'
_SBATCH = (
    'options of sbatch, for example partition=gpu time=120 gpus_per_node=1 (minutes)'
)
_MEASURES = ('magnitude', 'frequency')
_FORMAL = 'weights of a formal language, from tools/pretrain_block.py'
_FORMATS = ('onnx', 'torch-export', 'safetensors')
_VARIANTS = (
    'linear',
    'logreg',
    'knn',
    'attentive',
    'frozen',
    'random',
    'formal',
    'attention',
    'mlp',
)


def _read_layers(word: str) -> tuple[int, ...]:
    """Return the layers of a block that a word of ``--layers`` names.

    Raises:
        argparse.ArgumentTypeError: It is no number, and no range such as 24-29.
    """
    ends = re.fullmatch(r'(\d+)-(\d+)', word)
    if ends is not None:
        layers = tuple(range(int(ends[1]), int(ends[2]) + 1))
    elif re.fullmatch(r'-?\d+', word):
        layers = (int(word),)
    else:
        layers = ()
    if not layers:
        raise argparse.ArgumentTypeError(
            f"'{word}' is no layer, such as 15 or -1, and no range of layers, such as 24-29."
        )
    return layers


def _read_shots(word: str) -> int:
    """Return the number of pictures of each class that a word of ``--shots`` names; 0: all.

    Raises:
        argparse.ArgumentTypeError: It is neither a number from 1 on nor 'all'.
    """
    if word == 'all':
        return 0
    if re.fullmatch(r'[1-9]\d*', word):
        return int(word)
    raise argparse.ArgumentTypeError(f"'{word}' is no number of pictures, nor 'all'.")


#: Where the jobs of a study run.
_ENGINE: Flags = {
    '--threads': dict(type=at_least(1), default=1, help='CPU threads of each'),
    '--gpus': dict(
        default='', help='devices to share out among the workers, such as 0,1,2,3'
    ),
    '--executor': dict(
        choices=['local', 'slurm'], default='local', help='this machine, or Slurm'
    ),
    '--slurm': dict(nargs='+', default=[], metavar='NAME=VALUE', help=_SBATCH),
    '--only': dict(
        nargs='+', metavar='KEY', help='run these jobs here, and report nothing'
    ),
}


#: Command -> its flags.
FLAGS: dict[str, Flags] = {
    'try': {
        'encoder': dict(
            help='timm/NAME, transformers/ID, package:NAME, a folder or a config'
        ),
        'data': dict(help='a folder of class folders, a CSV file or a config'),
        '--block': dict(
            required=True,
            metavar='CHECKPOINT',
            help='package:NAME, folder or hub id of a language model',
        ),
        '--layers': dict(
            type=_read_layers,
            default=(-1,),
            metavar='LAYER',
            help='that are the block: 5, or 24-29 as one; default: the last',
        ),
        '--heads': dict(
            type=at_least(0),
            nargs='+',
            metavar='HEAD',
            help='query heads of each layer that the blocks keep; default: all',
        ),
        '--formal': dict(nargs='+', default=[], metavar='[NAME=]FOLDER', help=_FORMAL),
        '--variants': dict(
            nargs='+',
            choices=_VARIANTS,
            default=_VARIANTS,
            help='default: all',
        ),
        '--shots': dict(
            type=_read_shots,
            default=0,
            metavar='N',
            help="pictures of each class to train on, or 'all'; default: all",
        ),
        '--seeds': dict(
            type=at_least(2), default=8, help='trainings of each variant; default: 8'
        ),
        '--steps': dict(
            type=at_least(10), default=120, help='of each training; default: 120'
        ),
        '--rates': dict(
            type=float, nargs='+', default=[], help='of learning; default: a ladder'
        ),
        '--margin': dict(
            type=float, default=1.0, help='smallest difference that matters, points'
        ),
        '--tokens': dict(
            type=at_least(0),
            default=16,
            help='average-pool to so many tokens; 0 keeps all',
        ),
        '--dtype': dict(
            choices=['auto', 'float32', 'bfloat16'],
            default='auto',
            help='of all products; default: the faster one of the machine',
        ),
        '--encoder-checkpoint': dict(help='weights of an encoder that a config names'),
        '--size': dict(
            type=at_least(1), help="side of the pictures; default: the encoder's"
        ),
        '--limit': dict(type=at_least(1), help='take about so many pictures'),
        '--seed': dict(
            type=at_least(0), default=0, help='of the splits and of --limit; default: 0'
        ),
        '--group-by': dict(
            metavar='parent|COLUMN',
            help="pictures of a folder, or of a cell, are one group; default: 'group'",
        ),
        '--cache': dict(
            type=Path, default=Path('work_dirs/try/cache'), help='of what is computed'
        ),
        '--work-dir': dict(
            type=Path, help='of the report; default: named by what is compared'
        ),
        '--workers': dict(
            type=at_least(0),
            help='processes; default: one for each core, or for a GPU',
        ),
        **_ENGINE,
        '--report-only': dict(_YES, help='the report again, from its own files'),
    },
    'list': {'--task': dict(help='only those of it, for example image')},
    'train': {
        **RUN,
        '--epochs': dict(
            type=at_least(1), help='of the training; its schedules move in proportion'
        ),
        '--lr': dict(
            type=float, help="the optimizer's rate; the lowest one moves in proportion"
        ),
        '--batch-size': dict(
            type=at_least(1),
            help='samples of a process in a step; the rate stays, unless auto_scale_lr is enabled',
        ),
        '--amp': dict(nargs='?', const=PLAIN_AMP, choices=['bf16', 'fp16'], help=_AMP),
        '--resume': dict(nargs='?', const='newest', help=_RESUME),
        **STRICT,
        '--no-validate': dict(_YES, help='do not evaluate'),
        '--auto-scale-lr': dict(_YES, help=_SCALE),
        '--no-persistent-workers': dict(_YES, help='end workers after each epoch'),
        '--dry-run': dict(_YES, help=_DRY_RUN),
        '--dry-run-device': dict(
            metavar='a100|h100|4090',
            help='plan for this GPU, by an estimate; default: time a step here',
        ),
    },
    'test': {
        **RUN,
        'checkpoint': dict(help=CHECKPOINT),
        **EVALUATE,
        '--out': dict(
            help='file for the results: predictions as .csv, a row a sample, or .pkl, all '
            'that the model returns; metrics as .json'
        ),
        '--out-item': dict(
            choices=['metrics', 'pred'], help='what --out holds; default: predictions'
        ),
        '--show-dir': dict(help='folder for pictures of the predictions'),
        '--show': dict(_YES, help='show predictions in a window'),
        '--interval': dict(type=at_least(1), default=1, help='draw every n-th sample'),
        '--wait-time': dict(
            type=at_least(0.0), default=2.0, help='seconds a window stays'
        ),
        '--tta': dict(_YES, help=_TTA),
    },
    'visualize': {
        **INSPECT,
        'input': dict(nargs='*', help='files, folders or patterns of such'),
        '--indices': dict(
            nargs='+',
            type=at_least(0),
            default=[],
            help='samples of the test set, from 0',
        ),
        '--measures': dict(nargs='+', default=[*_MEASURES], choices=_MEASURES),
        '--no-attention': _YES,
        '--all-heads': dict(_YES, help='a panel for every head, not for three'),
        '--fps': dict(type=float, default=4.0, help='of videos written'),
    },
    'ablate': {
        'grid': dict(type=Path, help='grid file'),
        '--work-dir': dict(
            type=Path, default=Path('work_dirs/ablations'), help='of trials and tables'
        ),
        '--workers': dict(type=int, default=1, help='trainings at a time'),
        **_ENGINE,
        '--gpus-per-trial': dict(
            type=at_least(1), default=1, help='more than one train distributed'
        ),
        '--seeds': dict(type=int, nargs='+', help='only these'),
        '--variants': dict(nargs='+', help='only these'),
        '--margin': dict(
            type=float, help="smallest difference that matters; default: the grid's"
        ),
        '--list': dict(_YES, help='print the jobs and their states; run nothing'),
        '--report-only': dict(_YES, help='the report again, from its own files'),
    },
    'cost': {
        **CONFIG,
        '--base': dict(
            help='a config to compare with, for example the one without a block'
        ),
        '--batch': dict(type=int, help="samples of one process; default: the config's"),
        '--gpus': dict(
            type=int, nargs='+', help='also the bytes that so many GPUs send in a step'
        ),
        '--device': dict(
            metavar='a100|h100|4090', help='estimate seconds and hours on it'
        ),
        '--samples': dict(
            type=at_least(1), help='entries of the training data, for the hours'
        ),
    },
    'export': {
        **CONFIG,
        'checkpoint': dict(help=f"{CHECKPOINT}; or 'none': untrained"),
        '--format': dict(default='onnx', choices=_FORMATS, help='default: onnx'),
        '--out': dict(
            help='the file; default: work_dirs/<config>/<config> with the ending'
        ),
        '--overwrite': dict(_YES, help='the file may exist'),
        '--tolerance': dict(
            type=at_least(0.0), default=1e-4, help='refuse a file that differs by more'
        ),
        '--with-block': dict(_YES, help="safetensors: the frozen block's weights too"),
        **EVALUATE,
    },
    'release': {
        **CONFIG,
        'checkpoint': dict(help=CHECKPOINT),
        'out_folder': dict(help='where the two files go'),
        '--half': dict(_YES, help=_HALF),
    },
}


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of a command.

    The text of ``--help`` is the docstring of the command's module, which is read and not
    imported. ``visualize`` has a flag for each input option of the tasks.
    """
    flags = dict(FLAGS[command])
    if command == 'visualize':
        for task in all_tasks():
            for name, text in task.input_options.items():
                flags[f'--{name.replace("_", "-")}'] = dict(help=text)
    file = Path(__file__).with_name(f'{command}.py')
    tree = ast.parse(file.read_text(encoding='utf-8'))
    return build_parser(ast.get_docstring(tree), flags)
