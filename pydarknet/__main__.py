"""``pydarknet`` and ``python -m pydarknet``."""

import sys


def run():
    """The entry point of the ``pydarknet`` command."""
    try:
        from pydarknet.cli import main

        code = main()
    except KeyboardInterrupt:  # while modules were still imported
        print("pydarknet: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    run()
