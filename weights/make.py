"""Make the weights of this folder again: train each recipe on its text and keep what it ends with.

    python3 weights/make.py [TINYSHAKESPEARE [DON_QUIJOTE]]

rnn.weights and python.weights are trained on the standard library's source (data/build_stdlib_corpus.py), so that
another Python version gives other weights of the same quality; the others on the files given, without the end that
weights/README.md measures them by.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OF_SHAKESPEARE, OF_QUIJOTE = 111_540, 108_415  # bytes that are held out


def run(*arguments):
    print("$", *arguments, flush=True)
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, check=True)


def make(name, text, *options):
    with tempfile.TemporaryDirectory() as backup:
        run("-m", "pydarknet", "train", f"cfg/{name}.cfg", text, "--srand", "1", "--backup", backup, *options)
        weights = Path(backup) / f"{name}_final.weights"
        (ROOT / "weights" / f"{name}.weights").write_bytes(weights.read_bytes())


def make_without_the_end(text, held_out, **options_by_name):
    with tempfile.TemporaryDirectory() as folder:
        beginning = Path(folder) / "train.txt"
        beginning.write_bytes(Path(text).read_bytes()[:-held_out])
        for name, options in options_by_name.items():
            make(name, beginning, *options)


def main():
    run("data/build_stdlib_corpus.py")
    make("rnn", "data/stdlib.txt")
    make("python", "data/stdlib.txt", "--valid-fraction", ".01", "--valid-parts", "5", "--valid-every", "500")
    if len(sys.argv) > 1:
        make_without_the_end(sys.argv[1], OF_SHAKESPEARE, shakespeare=("--valid-fraction", ".025", "--valid-parts", "5"))
    if len(sys.argv) > 2:
        make_without_the_end(sys.argv[2], OF_QUIJOTE, quijote=("--valid-fraction", ".05", "--valid-every", "1500"))


if __name__ == "__main__":
    main()
