# `just` lists what there is; each is one line that can be typed as well.

default:
    @just --list

# structure, ruff, mypy
check:
    pytest -n0 tests/test_structure.py
    ruff format --check .
    ruff check .
    mypy

# all tests but slow, cuda and server; more words go to pytest
test *words:
    pytest {{words}}

# tests that start no process and no server: under a minute
unit *words:
    pytest -m unit {{words}}

# writes docs/cli.md anew from --help of every command
docs:
    python docs/generate_cli.py

# the walk over the built-in world; more words go to `interp demo`
demo *words:
    interp demo {{words}}
