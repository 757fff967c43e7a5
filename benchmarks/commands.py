"""What the benchmarks of whole runs share: the command line on a text of its own, and how long its iterations took."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from machine import python_text

CFG = """[net]
inputs=256
batch={B}
time_steps={T}
adam=1
learning_rate=.001
clip_norm=1
[lstm]
output={H}
[connected]
output=256
activation=linear
[softmax]
"""
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


def seconds_of(folder, size, iterations, *options, ranks=0):
    """The seconds of each iteration of a run of ``size`` (H, B, T) but the first two, in so many ``ranks``, a core each."""
    H, B, T = size
    folder = Path(folder)
    if not (folder / "text").exists():
        (folder / "text").write_bytes(python_text().tobytes())
    (folder / "net.cfg").write_text(CFG.format(H=H, B=B, T=T))
    log = folder / "log"
    log.unlink(missing_ok=True)
    train = [sys.executable, "-m", "pydarknet", "train", "net.cfg", "text", "--srand", "1", "--overwrite"]
    line = [*train, "--quiet", "--no-sample", "--log", "log", "--max-batches", str(iterations), *options]
    variables = dict(os.environ)
    if ranks:
        variables["OPENBLAS_NUM_THREADS"] = "1"
        line = [MPIEXEC, "-n", str(ranks), *line, "--mpi"]
    subprocess.run(line, cwd=folder, env=variables, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=600)
    records = map(json.loads, log.read_text().splitlines())
    return [record["seconds"] for record in records if "seconds" in record][2:]  # no header, no sample
