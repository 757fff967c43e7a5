"""``pydarknet`` and ``python -m pydarknet``."""

import sys


def run():
    """The entry point of the ``pydarknet`` command."""
    from pydarknet.cli import main

    sys.exit(main())


if __name__ == "__main__":
    run()
