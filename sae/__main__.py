"""`python -m sae`: the console script; and what `torchrun --nproc-per-node N -m sae` starts."""

from __future__ import annotations

import sys

from sae.cli import console
from sae.cli.app import app
from sae.core.quiet import run_as_rank


def main() -> int:
    """Run the command line; the exit code comes back."""
    console.use_utf8()
    return run_as_rank(lambda program: console.run(app, program), "sae")


if __name__ == "__main__":
    sys.exit(main())
