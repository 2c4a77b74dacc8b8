"""A real Slurm of one node, without accounting, cgroups or a system's services."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.runner.test_distributed import free_port

DAEMONS = 'munged', 'slurmctld', 'slurmd'
#: A requeued job waits until its credentials have expired, which is 120 seconds by default.
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=batch_sched_delay=0,sched_interval=1
InactiveLimit=0
KillWait=2
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def reason_against() -> str | None:
    """Return why no Slurm can be started here, or None."""
    path = f'{os.environ["PATH"]}:/usr/sbin:/sbin'
    missing = [d for d in DAEMONS if shutil.which(d, path=path) is None]
    if missing:
        return f'{", ".join(missing)} missing: apt-get install slurm-wlm munge'
    return None if os.getuid() == 0 else 'the daemons of a Slurm need root'


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Start the daemons; inside of the context the commands of Slurm talk to them.

    Args:
        folder (Path): For keys, state and logs. Its path must be short: sockets are in it.

    Raises:
        subprocess.SubprocessError: They do not start.
    """
    before = dict(os.environ)
    os.environ['PATH'] += ':/usr/sbin:/sbin'
    os.environ['SLURM_CONF'] = str(folder / 'slurm.conf')
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    (folder / 'munge.key').write_bytes(os.urandom(128))
    (folder / 'munge.key').chmod(0o400)
    host, ports = socket.gethostname().partition('.')[0], (free_port(), free_port())
    (folder / 'slurm.conf').write_text(CONFIG.format(folder=folder, host=host, ports=ports))
    (folder / 'cgroup.conf').write_text('CgroupPlugin=disabled\n')
    munge = [f'--{n}={folder}/munge.{n.partition("-")[0]}' for n in ('key-file', 'socket')]
    files = [f'--{n}-file={folder}/munge.{n}' for n in ('pid', 'log', 'seed')]
    try:
        for words in (['munged', '--force', *munge, *files], ['slurmctld'], ['slurmd', '-b']):
            subprocess.run(words, capture_output=True, timeout=30, check=True)
        ready = 'until [ "$(sinfo -h -o %T)" = idle ]; do sleep .2; done'
        subprocess.run(['bash', '-c', ready], capture_output=True, timeout=30, check=True)
        yield
    finally:
        subprocess.run(['scancel', '--quiet', '--user=root'], check=False, capture_output=True)
        for name in ('slurmd.pid', 'slurmctld.pid', 'munge.pid'):
            with contextlib.suppress(OSError, ValueError):
                _end(int((folder / name).read_text()))
        os.environ.clear()
        os.environ.update(before)


def _end(pid: int) -> None:
    """End a daemon and wait until it writes no more."""
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        os.kill(pid, 0)  # raises when it is gone
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
