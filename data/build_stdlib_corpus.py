"""Write data/stdlib.txt, the source of Python's standard library: `pydarknet corpus stdlib` for this folder.

python data/build_stdlib_corpus.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

if __name__ == "__main__":
    from pydarknet.cli import main

    sys.exit(main(["corpus", "stdlib", str(HERE / "stdlib.txt"), *sys.argv[1:]]))
