"""The same as ``python -m ganops bench``, in a checkout."""

import sys

from ganops.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
