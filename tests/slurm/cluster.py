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
        RuntimeError: They do not start.
    """
    before = dict(os.environ)
    os.environ['PATH'] += ':/usr/sbin:/sbin'
    os.environ['SLURM_CONF'] = str(folder / 'slurm.conf')
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    (folder / 'munge.key').write_bytes(os.urandom(128))
    (folder / 'munge.key').chmod(0o400)
    host = socket.gethostname().partition('.')[0]
    config = CONFIG.format(folder=folder, host=host, ports=_free_ports(2))
    (folder / 'slurm.conf').write_text(config)
    (folder / 'cgroup.conf').write_text('CgroupPlugin=disabled\n')
    munge = [f'--{n}={folder}/munge.{n.partition("-")[0]}' for n in ('key-file', 'socket')]
    files = [f'--{n}-file={folder}/munge.{n}' for n in ('pid', 'log', 'seed')]
    try:
        _call('munged', '--force', *munge, *files)
        _call('slurmctld')
        _call('slurmd', '-b')
        _wait_for_node()
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


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f'{words[0]}: {done.stderr.strip()}')


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(('127.0.0.1', 0))
        return [s.getsockname()[1] for s in sockets]


def _wait_for_node() -> None:
    end = time.monotonic() + 30
    said = ''
    while time.monotonic() < end:
        done = subprocess.run(
            ['sinfo', '-h', '-o', '%T'], capture_output=True, text=True, check=False
        )
        said = (done.stdout + done.stderr).strip()
        if said == 'idle':
            return
        time.sleep(0.2)
    raise RuntimeError(f'the node does not become idle: {said}')
