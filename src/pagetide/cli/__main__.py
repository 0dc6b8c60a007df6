"""`python -m pagetide.cli`."""

import sys

from pagetide.cli import main

if __name__ == "__main__":
    sys.exit(main())
