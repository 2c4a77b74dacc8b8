"""A real Slurm of one node, without accounting, cgroups or a system's services."""

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from tests.helpers.processes import free_port

DAEMONS = ('munged', 'slurmctld', 'slurmd')
#: Of the node; more than there may be, so that jobs of several tests run at a time.
CPUS = 8
#: A requeued job waits until its credentials have expired, which is 120 seconds by
#: default.
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthInfo=socket={folder}/munge.socket,cred_expire=30
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
KillWait=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES PriorityTier=2 PreemptMode=OFF
PartitionName=scavenger Nodes=ALL PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=3
"""


def reason_against() -> str | None:
    """Return why no Slurm can be started here, or None."""
    missing = [d for d in DAEMONS if shutil.which(d, path=_searched()) is None]
    if missing:
        return f'{", ".join(missing)} missing: apt-get install slurm-wlm munge'
    if os.getuid() != 0:
        return 'the daemons of a Slurm need root'
    return None


def _searched() -> str:
    """Return the folders of daemons and commands."""
    return f'{os.environ["PATH"]}:/usr/sbin:/sbin'


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Start the daemons; inside of the context the commands of Slurm talk to them.

    Args:
        folder (Path): For keys, state and logs. Its path must be short: sockets are in
            it.

    Raises:
        subprocess.SubprocessError: They do not start.
    """
    _write_settings(folder)
    changes = dict(PATH=_searched(), SLURM_CONF=f'{folder}/slurm.conf')
    with patch.dict(os.environ, changes):
        try:
            _start(folder)
            yield
        finally:
            # The tests' jobs run as root, the only user here. They need not have ended.
            cancel = ['scancel', '--quiet', '--user=root']
            subprocess.run(cancel, check=False, capture_output=True)
            for name in ('slurmd.pid', 'slurmctld.pid', 'munge.pid'):
                with contextlib.suppress(OSError, ValueError):
                    _end(int((folder / name).read_text()))


def _write_settings(folder: Path) -> None:
    """Write the settings of Slurm and the key of munge, and create their folders."""
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    key = folder / 'munge.key'
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    config = CONFIG.format(
        folder=folder,
        host=socket.gethostname().partition('.')[0],
        controller_port=free_port(),
        node_port=free_port(),
        cpus=CPUS,
    )
    (folder / 'slurm.conf').write_text(config)
    (folder / 'cgroup.conf').write_text('CgroupPlugin=disabled\n')


def _start(folder: Path) -> None:
    """Start the daemons, and wait until the node takes jobs."""
    munge = ['munged', '--force']
    for name in ('key', 'socket', 'pid', 'log', 'seed'):
        option = '--socket' if name == 'socket' else f'--{name}-file'
        munge.append(f'{option}={folder}/munge.{name}')
    ready = 'until [ "$(sinfo -h -o %T)" = idle ]; do sleep .2; done'
    for command in (munge, ['slurmctld'], ['slurmd', '-b'], ['bash', '-c', ready]):
        subprocess.run(command, capture_output=True, timeout=30, check=True)


def _end(pid: int) -> None:
    """End a daemon and wait until it writes no more."""
    ended = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    if not select.select([ended], [], [], 10)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(ended)


def submit(script: Path, *options: str, log: Path, words: Sequence[object] = ()) -> str:
    """Submit a job that writes to a log; return its id.

    Args:
        script (Path): The batch script.
        *options (str): Of ``sbatch``.
        log (Path): What the job prints.
        words (Sequence): The script's command line.
    """
    command = ['sbatch', '--parsable', f'--output={log}', *options, script, *words]
    text = subprocess.check_output([str(word) for word in command], text=True)
    return text.strip()


def show(job: str, field: str) -> str:
    """Return a field of a job, as ``scontrol show job`` names it."""
    text = subprocess.check_output(['scontrol', 'show', 'job', job], text=True)
    match = re.search(rf'\b{field}=(\S*)', text)
    assert match is not None, text
    return match[1]


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until something is so, and fail if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)
