"""`python -m interp`: the console script."""

from interp.cli.app import main

if __name__ == "__main__":
    main()
