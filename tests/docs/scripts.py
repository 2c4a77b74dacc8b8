"""Python scripts in processes that fork from one which has imported what is heavy.

A new interpreter imports for four seconds before a script does anything; a fork has
imported PyTorch, MMEngine, transformers and mmpretrain already, and is otherwise as new.
"""

import multiprocessing
import os
import runpy
import shlex
import sys
from pathlib import Path

_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(
    ['lm4ve.blocks', 'mmengine.runner', 'mmpretrain.models', 'mmpretrain.datasets', 'pandas']
)


def run_script(words: list[str], folder: Path, environment: dict, log: Path, timeout: int) -> int:
    """Run ``python WORDS`` in a folder; return its exit code.

    Args:
        words (list[str]): A script and its arguments, or '-c' and code.
        log (Path): Gets everything that the script prints.
        timeout (int): Seconds after which the script is ended, with a negative code.
    """
    process = _CONTEXT.Process(target=_run, args=(words, folder, environment, log))
    process.start()
    process.join(timeout)
    process.kill()
    process.join()
    return process.exitcode


def python_commands(script: str) -> list[list[str]] | None:
    """Return the words after 'python' of each line, or None if a shell must read them.

    The console command stands for the module that it calls.
    """
    lines = [shlex.split(line, comments=True) for line in script.splitlines()]
    commands = [words for words in lines if words]
    module = ['python', 'lm4ve/commands/__main__.py']
    commands = [[*module, *c[1:]] if c[0] == 'lm4ve' else c for c in commands]
    plain = all(c[0] == 'python' and c[1].endswith('.py') for c in commands)
    return [c[1:] for c in commands] if plain else None


def _run(words: list[str], folder: Path, environment: dict, log: Path) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    with log.open('ab') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if words[0] == '-c':
        exec(words[1], {'__name__': '__main__'})
        return
    sys.argv = words
    if words[0].startswith('lm4ve/'):
        runpy.run_module('lm4ve.commands', run_name='__main__')
        return
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name='__main__')
