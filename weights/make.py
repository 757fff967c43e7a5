"""Make the weights of this folder again: train each recipe on its text and keep what it ends with.

    python3 weights/make.py [TINYSHAKESPEARE]

rnn.weights is trained on the standard library's source (data/build_stdlib_corpus.py), so that another
Python version gives other weights of the same quality; lstm-10min.weights on the file TINYSHAKESPEARE
without its last 111,540 bytes, if it is given.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT = 111_540  # bytes


def run(*arguments):
    print("$", *arguments, flush=True)
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, check=True)


def make(name, text):
    with tempfile.TemporaryDirectory() as backup:
        run("-m", "pydarknet", "train", f"cfg/{name}.cfg", text, "--srand", "1", "--backup", backup)
        weights = Path(backup) / f"{name}_final.weights"
        (ROOT / "weights" / f"{name}.weights").write_bytes(weights.read_bytes())


def main():
    run("data/build_stdlib_corpus.py")
    make("rnn", "data/stdlib.txt")
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "train.txt"
            text.write_bytes(Path(sys.argv[1]).read_bytes()[:-HELD_OUT])
            make("lstm-10min", text)


if __name__ == "__main__":
    main()
