"""Checks that weights, files, folders and GPUs are there."""

from lm4ve.dry_run.finding import Finding, Verdict
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import UserError
from lm4ve.runner.missing import describe, find_missing


def check_inputs(plan: Plan) -> Finding:
    """Look for all that the training needs, before anything is built.

    Raises:
        UserError: It cannot begin without something.
    """
    found = find_missing(plan.cfg, plan.local_processes)
    if any(each.stops for each in found):
        raise UserError(describe(found))
    if found:
        return Finding(describe(found), Verdict.WARNING)
    return Finding('all there')
