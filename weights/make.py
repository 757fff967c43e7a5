"""Make the weights of this folder again: train each recipe on its text and keep what it ends with.

    python3 weights/make.py

Takes about as long as the recipes say, one after the other. The text is the standard library's source
(data/build_stdlib_corpus.py), so that another Python version gives other weights of the same quality.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ["rnn"]  # names of cfg files; each makes weights/NAME.weights


def run(*arguments):
    print("$", *arguments, flush=True)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


def main():
    run("data/build_stdlib_corpus.py")
    for name in RECIPES:
        with tempfile.TemporaryDirectory() as backup:
            run("-m", "pydarknet", "train", f"cfg/{name}.cfg", "data/stdlib.txt", "--srand", "1", "--backup", backup)
            weights = Path(backup) / f"{name}_final.weights"
            (ROOT / "weights" / f"{name}.weights").write_bytes(weights.read_bytes())


if __name__ == "__main__":
    main()
