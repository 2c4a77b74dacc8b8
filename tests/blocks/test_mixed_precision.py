"""A block whose weights train computes in the type that FSDP casts them to for a step."""

import json
import subprocess

from tests.helpers.blocks.mixed_precision import WRAPPERS
from tests.helpers.processes import environment


def test_a_trained_block_computes_in_the_type_of_its_weights():
    program = ['python', '-m', 'tests.helpers.blocks.mixed_precision']
    job = subprocess.run(
        program, env=environment(), stdout=subprocess.PIPE, text=True, timeout=600
    )
    assert job.returncode == 0
    lines = [line for line in job.stdout.splitlines() if line.startswith('["')]
    errors = dict(json.loads(line) for line in lines)
    assert len(errors) == 2 * len(WRAPPERS)
    # Products in bfloat16, which are none of fp32.
    assert all(1e-4 < error < 0.1 for error in errors.values()), errors
