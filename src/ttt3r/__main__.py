"""Lets ``python -m ttt3r`` stand for the command ``ttt3r``."""

import sys

from ttt3r.cli import main

if __name__ == "__main__":
    sys.exit(main())
