"""``python -m deeplab STAGE --flag=value``: the same as the console script ``deeplab``."""

from deeplab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
