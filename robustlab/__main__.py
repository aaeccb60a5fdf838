"""``python -m robustlab`` is the console command ``robustlab``."""

import sys

from robustlab.commands import main

if __name__ == "__main__":
    sys.exit(main())
