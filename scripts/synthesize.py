"""`python scripts/synthesize.py ...` is `robustlab synthesize ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from robustlab.commands import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["synthesize", *sys.argv[1:]]))
