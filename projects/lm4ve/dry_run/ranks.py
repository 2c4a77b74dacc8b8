"""What the processes of a dry run tell one another: after each check, what they have found.

Within a check in which they wait for one another, as in the sum of gradients, a process
that fails can no longer answer the others. It ends, and the launcher ends the rest, as in
a training.
"""

import socket
from collections.abc import Sequence

from mmengine.dist import all_gather_object, get_rank, get_world_size

from lm4ve.dry_run.finding import Finding, Verdict
from lm4ve.runner.error_lines import TRACEBACK

_ORDER = [Verdict.FAILED, Verdict.UNCHECKED, Verdict.WARNING, Verdict.OK]


def merge(own: Finding) -> Finding:
    """Return what all processes have found: the worst of it, with the rank that found it.

    Findings that differ in what must be the same everywhere are a failure. All
    processes have to call it; each gets the same result.
    """
    if get_world_size() == 1:
        return own
    findings = all_gather_object(own)
    hosts = all_gather_object(socket.gethostname())
    difference = _find_difference(findings)
    if difference:
        return Finding(difference, Verdict.FAILED)
    ranks = range(len(findings))
    worst = min(ranks, key=lambda rank: _ORDER.index(findings[rank].verdict))
    finding: Finding = findings[worst]
    verdicts = {each.verdict for each in findings}
    text = f'rank {worst} ({hosts[worst]}): {finding.text}'
    if len(verdicts) == 1:
        # Alike everywhere; numbers may differ a little.
        text = findings[0].text
    return Finding(text, finding.verdict, is_of_storage=finding.is_of_storage)


def with_rank(failure: str) -> str:
    """Add to a failure of this process alone which one it is.

    A launcher prints a line once that several processes report; what begins with
    ``TRACEBACK`` may differ.
    """
    process = f'rank {get_rank()} on {socket.gethostname()}'
    sentence, mark, log = failure.partition(TRACEBACK)
    if not mark:
        return failure
    return f'{sentence}{mark}{process}, {log}'


def _find_difference(findings: Sequence[Finding]) -> str:
    """Return the first fact in which a process differs from the first one, or ''.

    Processes that have failed have no facts.
    """
    expected = findings[0].facts
    for rank, finding in enumerate(findings):
        for name, value in finding.facts.items():
            if name in expected and expected[name] != value:
                return f'{name}: {expected[name]} in rank 0, but {value} in rank {rank}'
    return ''
