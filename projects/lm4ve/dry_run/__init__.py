"""``lm4ve train --dry-run``: what a careful person checks before a day is rented.

:func:`dry_run` runs the table of :mod:`lm4ve.dry_run.checks`, and prints a row for each
check. docs/guides/before_training.md shows one.
"""

from lm4ve.dry_run.run import dry_run

__all__ = ['dry_run']
