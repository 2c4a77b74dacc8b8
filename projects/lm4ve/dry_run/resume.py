"""Checks where the training would begin, and that it would not replace another one."""

import os
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_rank

from lm4ve.dry_run.finding import Finding, warning_if
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError, listing
from lm4ve.runner.checkpoint_files import meta_of, read_checkpoint
from lm4ve.runner.resume import choose_start


def check_resume(plan: Plan) -> Finding:
    """Find the checkpoint that the training would continue from, if it would.

    Raises:
        UserError: There is none although one is asked for, it is damaged, or another
            run works in the work directory.
    """
    cfg = plan.cfg
    _refuse_running(Path(cfg.work_dir))
    choose_start(cfg)
    if not cfg.get('resume'):
        return _describe_beginning(cfg)
    path = Path(cfg.load_from)
    if not path.is_file():  # an address, or a folder of shards
        return Finding(f"continues from '{path}', which was not read")
    meta = meta_of(read_checkpoint(path))
    plan.done = int(meta.get('iter', 0))
    text = f"continues from '{path}' after epoch {meta.get('epoch')}, iteration {plan.done}"
    return Finding(text, facts={'checkpoint': (path.name, plan.done)})


def _describe_beginning(cfg: Config) -> Finding:
    """Return that the training begins anew; a warning if it would replace checkpoints."""
    existing = sorted(path.name for path in Path(cfg.work_dir).glob('*.pth'))
    text = f"begins anew in '{cfg.work_dir}'"
    if cfg.get('load_from'):
        text += f" with the weights of '{cfg.load_from}'"
    problem = ''
    if existing:
        problem = f'It would replace {listing(existing, 3)}: see --resume'
    return warning_if(problem, text)


def _refuse_running(work_dir: Path) -> None:
    """Refuse a work directory in which a training of this machine runs.

    Its lock is looked up in the system's table; taking it, even for a moment, could
    stop a training that starts.

    Raises:
        UserError: A process holds the lock.
    """
    lock = work_dir / f'training-{get_rank()}.lock'
    try:
        status = lock.stat()
        table = Path('/proc/locks').read_text(encoding='utf-8')
    except OSError:
        return
    device = f'{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}'
    place = f'{device}:{status.st_ino}'
    for line in table.splitlines():
        # 1: FLOCK  ADVISORY  WRITE 708 08:01:131 0 EOF
        if place in line.split():
            raise UserError(
                f"Another run works here: it holds '{lock}'. Fix: wait for it, or name another "
                'folder by --work-dir.'
            )
