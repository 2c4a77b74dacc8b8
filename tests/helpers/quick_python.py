"""A ``python`` for tests that starts at once: it forks from one that has imported all.

A new interpreter imports for six seconds before a script does anything. :func:`folder`
has a ``python`` and a ``lm4ve`` for the front of ``PATH``, small programs that ask a
server for a fork. This has PyTorch, MMEngine (quickened), transformers and mmpretrain
imported, and is otherwise as new: it has the arguments, environment, folder and open
files of the caller, which passes signals on to it and ends as it ends. What a test says
of imports needs a real one.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

PRELOADED = (
    *(
        'lm4ve.openmmlab',
        'lm4ve.blocks',
        'lm4ve.runner.command_line',
        'mmengine.runner',
        'mmpretrain.models',
    ),
    *(
        'mmpretrain.datasets',
        'pandas',
        'torch.distributed.run',
        'torch.utils.tensorboard',
    ),
    *('transformers.models.bert.modeling_bert', 'sklearn.datasets', 'sklearn.metrics'),
    'matplotlib.pyplot',
)
CALLER = """\
#!{python} -SE
import json, os, signal, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b'\\n'], [0, 1, 2])
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    asked = dict(words={words} + sys.argv[1:], folder=os.getcwd(), env=dict(os.environ),
                 program=__file__, ignored=ignored)
    server.sendall(json.dumps(asked).encode() + b'\\n')
    answers = server.makefile()
    pid = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGHUP, *[signal.SIGINT] * (not ignored)):
        signal.signal(number, lambda n, _: os.kill(pid, n))
    code = int(answers.readline())
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@functools.cache
def folder(
    preloaded: tuple[str, ...] = PRELOADED,
    environment: tuple[tuple[str, str], ...] = (),
) -> Path:
    """Start a server of this process, once; return the folder with the programs.

    Args:
        preloaded (tuple[str, ...]): What the server imports; what is not there is left
            out.
        environment (tuple): Names and values of variables that it has besides.
    """
    made = Path(tempfile.mkdtemp(prefix='python'))
    address = str(made / 'socket')
    for name, words in (('python', []), ('lm4ve', ['-m', 'lm4ve.commands'])):
        program = made / name
        text = CALLER.format(python=sys.executable, address=address, words=words)
        program.write_text(text)
        program.chmod(0o755)
    paths = os.pathsep.join(filter(None, sys.path))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        server = subprocess.Popen(
            [sys.executable, '-m', __name__, str(listening.fileno()), *preloaded],
            stdin=subprocess.PIPE,  # its end tells the server that this process has ended
            pass_fds=[listening.fileno()],
            cwd=Path(__file__).parents[2],
            env={**os.environ, 'PYTHONPATH': paths, **dict(environment)},
        )

    def stop() -> None:
        server.stdin.close()
        server.wait()
        shutil.rmtree(made, ignore_errors=True)

    atexit.register(stop)
    return made


def path() -> str:
    """Return a ``PATH`` on which the programs come first, then those of this environment."""
    own = Path(sys.executable).parent
    return os.pathsep.join(map(str, (folder(), own, os.environ['PATH'])))


def _serve(listening: socket.socket, preloaded: list[str]) -> None:
    for name in preloaded:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from tests.helpers.quick_mmengine import quicken

    quicken()
    gc.collect()
    gc.freeze()  # or each fork would copy what is collected
    while True:
        ready, _, _ = select.select([listening, 0], [], [], 1)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if 0 in ready:
            return
        if listening in ready:
            caller, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _keep(caller)
            caller.close()


def _keep(caller: socket.socket) -> None:
    """Start a process for a caller; tell how it ends, or end it with the caller."""
    _, files, _, _ = socket.recv_fds(caller, 1, 3)
    asked = json.loads(caller.makefile().readline())
    pid = os.fork()
    if pid == 0:
        caller.close()
        _become(files, **asked)
    for file in files:
        os.close(file)
    with contextlib.suppress(OSError):
        caller.sendall(b'%d\n' % pid)
    ended = os.pidfd_open(pid)
    ready, _, _ = select.select([ended, caller], [], [])
    if ended not in ready:  # the caller is gone: nothing else comes from it
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        caller.sendall(b'%d\n' % code)
    os._exit(0)


def _become(
    files: list[int], words: list, folder: str, env: dict, program: str, ignored: bool
):
    """Be what ``python WORDS`` is; never returns."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler
    )
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.executable = program
    sys.path[:0] = [p for p in env.get('PYTHONPATH', '').split(os.pathsep) if p]
    code: object = 1
    try:
        _run(words)
        code = 0
    except SystemExit as e:
        code = e.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as e:
        traceback.print_exc()
        if isinstance(e, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    for end in (
        threading._shutdown,
        atexit._run_exitfuncs,
        sys.stdout.flush,
        sys.stderr.flush,
    ):
        with contextlib.suppress(BaseException):
            end()
    os._exit(code)


def _run(words: list[str]) -> None:
    while words[0] in ('-u', '-W'):
        words = words[1 if words[0] == '-u' else 2 :]
    kind, *rest = words
    sys.path.insert(
        0, str(Path(kind).resolve().parent) if kind[0] != '-' else os.getcwd()
    )
    sys.argv = rest if kind == '-m' else words
    if kind == '-m':
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    elif kind == '-c':
        sys.argv = ['-c', *rest[1:]]
        exec(rest[0], {'__name__': '__main__'})
    else:
        runpy.run_path(kind, run_name='__main__')


if __name__ == '__main__':
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
