"""``python -m modalign`` is the command ``modalign``."""

from modalign.cli import main

if __name__ == "__main__":
    main()
