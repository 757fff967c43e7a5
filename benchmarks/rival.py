"""What a PyTorch program makes of a text in so many minutes, to hold `pydarknet train TEXT --minutes M` against.

python benchmarks/rival.py novel.txt --minutes 10 --sizes 256,512,768 --rates .01,.006,.004

An embedding, one LSTM, dropout and a linear layer, trained with Adam on all but the last tenth; the sizes one after the other,
each for the whole time. Then the loss of the last tenth, in one pass. The rate rises over the first hundredth of the time and
falls to nothing by the cosine, so that a run is over when its time is. PyTorch uses the cores as it likes.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

WARM_UP = 0.01  # of the time
MEASURED_AT_ONCE = 64, 1000  # texts side by side, and characters of each in a call


class Model(nn.Module):
    """The network of ``size`` units, for bytes."""

    def __init__(self, size, embedding, dropout):
        super().__init__()
        self.embedding = nn.Embedding(256, embedding)
        self.lstm = nn.LSTM(embedding, size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, 256)

    def forward(self, symbols, state=None):
        y, state = self.lstm(self.embedding(symbols), state)
        return self.output(self.dropout(y)), state


def train(text, options, size, highest_rate, seconds):
    """A model trained on ``text`` for so many seconds, and how many characters it saw."""
    torch.manual_seed(options.seed)
    model = Model(size, options.embedding, options.dropout)
    optimizer = torch.optim.Adam(model.parameters())
    B, T = options.streams, options.steps
    stream = len(text) // B
    columns = torch.from_numpy(text[: stream * B].reshape(B, stream).T.copy())
    begun, state, at, seen = time.perf_counter(), None, 0, 0
    while (done := (time.perf_counter() - begun) / seconds) < 1:
        rate = highest_rate * min(done / WARM_UP, (1 + math.cos(math.pi * done)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if at + T + 1 > stream:
            at, state = 0, None
        logits, state = model(columns[at : at + T], state)
        state = tuple(part.detach() for part in state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), columns[at + 1 : at + T + 1].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1)
        optimizer.step()
        at, seen = at + T, seen + B * T
    return model, seen


@torch.no_grad()
def measure(model, text):
    """Nats a character."""
    model.eval()
    streams, steps = MEASURED_AT_ONCE
    part = (len(text) - 1) // streams
    rows = torch.from_numpy(np.stack([text[i * part : (i + 1) * part + 1] for i in range(streams)], axis=1))
    total, state = 0.0, None
    for t in range(0, part, steps):
        logits, state = model(rows[t : min(t + steps, part)], state)
        truth = rows[t + 1 : min(t + steps, part) + 1]
        total += nn.functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="sum").item()
    return total / (part * streams)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sizes", default="256,512,768")
    parser.add_argument("--embedding", type=int, default=128)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--rates", default=".01,.006,.004", help="one for each size")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    text = np.frombuffer(options.text.read_bytes(), np.uint8).astype(np.int64)
    middle = len(text) - len(text) // 10
    for size, rate in zip(options.sizes.split(","), options.rates.split(","), strict=True):
        model, seen = train(text[:middle], options, int(size), float(rate), options.minutes * 60)
        print(json.dumps({"units": int(size), "characters": seen, "nats": round(measure(model, text[middle:]), 4)}), flush=True)


if __name__ == "__main__":
    main()
