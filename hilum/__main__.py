"""`python -m hilum` is the `hilum` command."""

import sys


def main() -> None:
    """Run the command. Ctrl-C while it is being imported ends it without a traceback, too."""
    try:
        from hilum.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
