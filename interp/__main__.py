"""`python -m interp`: the console script; and `torchrun --nproc-per-node N -m interp collect`."""

import sys

from interp.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
