"""A real Slurm of one node, without accounting, cgroups or a system's services."""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from tests.helpers.processes import free_port

DAEMONS, SEARCHED = ('munged', 'slurmctld', 'slurmd'), '{}:/usr/sbin:/sbin'
#: A requeued job waits until its credentials have expired, which is 120 seconds by
#: default.
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthInfo=socket={folder}/munge.socket,cred_expire=30
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
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
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def reason_against() -> str | None:
    """Return why no Slurm can be started here, or None."""
    path = SEARCHED.format(os.environ['PATH'])
    missing = [d for d in DAEMONS if shutil.which(d, path=path) is None]
    if missing:
        return f'{", ".join(missing)} missing: apt-get install slurm-wlm munge'
    return None if os.getuid() == 0 else 'the daemons of a Slurm need root'


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Start the daemons; inside of the context the commands of Slurm talk to them.

    Args:
        folder (Path): For keys, state and logs. Its path must be short: sockets are in
            it.

    Raises:
        subprocess.SubprocessError: They do not start.
    """
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    (folder / 'munge.key').write_bytes(os.urandom(128))
    (folder / 'munge.key').chmod(0o400)
    host, ports = socket.gethostname().partition('.')[0], (free_port(), free_port())
    (folder / 'slurm.conf').write_text(
        CONFIG.format(folder=folder, host=host, ports=ports)
    )
    (folder / 'cgroup.conf').write_text('CgroupPlugin=disabled\n')
    options = ('key-file', 'socket', 'pid-file', 'log-file', 'seed-file')
    munge = [f'--{n}={folder}/munge.{n.partition("-")[0]}' for n in options]
    changes = dict(
        PATH=SEARCHED.format(os.environ['PATH']), SLURM_CONF=f'{folder}/slurm.conf'
    )
    with patch.dict(os.environ, changes):
        try:
            for words in (
                ['munged', '--force', *munge],
                ['slurmctld'],
                ['slurmd', '-b'],
            ):
                subprocess.run(words, capture_output=True, timeout=30, check=True)
            ready = 'until [ "$(sinfo -h -o %T)" = idle ]; do sleep .2; done'
            subprocess.run(
                ['bash', '-c', ready], capture_output=True, timeout=30, check=True
            )
            yield
        finally:
            subprocess.run(
                ['scancel', '--quiet', '--user=root'], check=False, capture_output=True
            )
            for name in ('slurmd.pid', 'slurmctld.pid', 'munge.pid'):
                with contextlib.suppress(OSError, ValueError):
                    _end(int((folder / name).read_text()))


def _end(pid: int) -> None:
    """End a daemon and wait until it writes no more."""
    ended = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    if not select.select([ended], [], [], 10)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(ended)
