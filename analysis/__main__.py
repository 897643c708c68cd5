"""Entry point of ``python -m analysis``."""

from analysis.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main())
