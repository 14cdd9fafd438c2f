"""`python -m sae`: the console script; and what `torchrun --nproc-per-node N -m sae` starts.

Of several processes only the first one speaks: the others would say the same. A bug in one of them
is shown all the same, and that another one has gone: it may be the first.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout

from sae.cli import console
from sae.cli.app import app
from sae.core.errors import BUG, FAILURES


def main() -> int:
    """Run the command line; the exit code comes back."""
    console.use_utf8()
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if n == 1:
        return console.run(app, "sae")
    if os.environ.get("RANK", "0") == "0":
        return console.run(app, f"torchrun --nproc-per-node {n} -m sae")
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = console.run(app, "sae")
    if code in (BUG, FAILURES):
        print(said.getvalue(), end="", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
