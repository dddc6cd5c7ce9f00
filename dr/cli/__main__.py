"""`python -m dr.cli`: `dr` where its script is not installed. Knows nothing else."""

import sys

from dr.cli import main

if __name__ == "__main__":
    sys.exit(main())
