"""A network out of a PyTorch state dict that pydarknet did not write: stacked ``nn.LSTM``, and ``nn.Linear`` on top.

A state dict says which tensors there are, and nothing of how they are connected. So only what leaves no doubt is taken:
one or several LSTM layers, one way; one linear layer that gives the scores of the next symbol; and in front of them either
one-hot symbols or an ``nn.Embedding``, which disappears in the matrices that take its place: U (E x) = (U E) x.
"""

import re
from itertools import pairwise

import numpy as np

from pydarknet.darknet.cfg import parse_cfg_text
from pydarknet.darknet.dialect import PJREDDIE
from pydarknet.errors import WeightsError
from pydarknet.interop.metadata import Imported
from pydarknet.interop.tensors import take
from pydarknet.network import Network
from pydarknet.system.files import show

CELL = re.compile(r"(?P<module>.*?)\.?(?P<kind>weight|bias)_(?P<side>ih|hh|hr)(_l(?P<layer>\d{1,9}))?(?P<reverse>_reverse)?")
EMBEDDING = re.compile(r"emb|encoder|wte|lookup", re.IGNORECASE)  # what people call one

CFG = """\
# Made by pydarknet from {name}.
# The weights are trained; what [net] says of training is a proposal.
[net]
inputs={inputs}
batch=16
time_steps=40
adam=1
decay=0
learning_rate=.001
clip_norm=1
max_batches=1000
"""


def network_of_state_dict(given, facts, path):
    """The :class:`~pydarknet.interop.metadata.Imported` of the tensors ``given`` of the file at ``path``, {name: array}.

    ``facts`` is the file's metadata. Raises WeightsError for a model that a Darknet network can't compute.
    """
    given = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): array for name, array in given.items()}
    # safetensors.torch.save_model keeps one of two tied tensors, and says whose place it takes.
    given |= {name: given[kept] for name, kept in facts.items() if name not in given and kept in given}
    return _Reading(given, show(path)).network()


class _Reading:
    """What is found out about the tensors ``given``. ``shown`` is what messages call their file."""

    def __init__(self, given, shown):
        self.given, self.shown = given, shown

    def network(self):
        cells, others = self._sorted()
        inputs, outputs = cells[0]["weight_ih"].shape[1], cells[-1]["weight_hh"].shape[1]
        embedding, head = self._around(others, inputs, outputs)
        symbols = inputs if embedding is None else len(embedding)
        if len(head["weight"]) != symbols:
            raise self._error(
                f"it reads {symbols} symbols and writes {len(head['weight'])}; a Darknet network has as many of both"
            )
        if embedding is not None:
            with np.errstate(over="ignore"):  # take() tells what is infinite
                product = cells[0]["weight_ih"].astype(np.float64) @ embedding.astype(np.float64).T
                cells[0]["weight_ih"] = product.astype(np.float32)
        sizes = [cell["weight_hh"].shape[1] for cell in cells]
        sections = [CFG.format(name=self.shown, inputs=symbols), *(f"[lstm]\noutput={size}\n" for size in sizes)]
        text = "\n".join([*sections, f"[connected]\noutput={symbols}\nactivation=linear\n", "[softmax]\n"])
        network = Network(parse_cfg_text(text, f"cfg of {self.shown}"))
        named = {f"layers.{n}.{name}_l0": array for n, cell in enumerate(cells) for name, array in cell.items()}
        named |= {f"layers.{len(cells)}.{name}": array for name, array in head.items()}
        take(network, named, self.shown)
        return Imported(network, text, PJREDDIE.version)

    def _error(self, message):
        return WeightsError(f"{self.shown}: {message}")

    def _sorted(self):
        """The LSTM layers from the input on, each {kind_side: array}, and the other modules, {module: {kind: array}}."""
        found: dict[tuple[str, int], dict] = {}
        others: dict[str, dict] = {}
        for name, array in self.given.items():
            match = CELL.fullmatch(name)
            if match:
                self._check_direction(name, match)
                place = match["module"], int(match["layer"] or 0)
                found.setdefault(place, {})[f"{match['kind']}_{match['side']}"] = array
            else:
                module, _, kind = name.rpartition(".")
                others.setdefault(module, {})[kind] = array
        if not found:
            raise self._error("holds no torch.nn.LSTM (weight_ih_l0, weight_hh_l0), the only recurrent layer that is imported")
        for (module, _), cell in found.items():
            self._complete(module or "the recurrent layer", cell)
        return [found[place] for place in self._order(found)], others

    def _check_direction(self, name, match):
        if match["reverse"]:
            raise self._error(f"{name}: is of an LSTM that reads both ways, which no Darknet network does")
        if match["side"] == "hr":
            raise self._error(f"{name}: is of an LSTM with proj_size, which Darknet's can't have")

    def _complete(self, name, cell):
        """Check that ``cell`` is an LSTM's, and give it biases of zero if it has none."""
        for kind in ("weight_ih", "weight_hh"):
            if kind not in cell or cell[kind].ndim != 2:
                raise self._error(f"{name}: has no matrix {kind}")
        rows, size = cell["weight_hh"].shape
        if rows == 3 * size:
            raise self._error(
                f"{name}: is an nn.GRU, which applies r after the candidate's product; Darknet's multiplies r ∘ h, "
                "so no Darknet network computes the same"
            )
        if rows == size:
            raise self._error(
                f"{name}: is an nn.RNN, which activates the sum of its products; Darknet's activates each, "
                "so no Darknet network computes the same"
            )
        if rows != 4 * size or len(cell["weight_ih"]) != rows:
            raise self._error(f"{name}: its matrices {cell['weight_ih'].shape} and {cell['weight_hh'].shape} are no LSTM's")
        for kind in ("bias_ih", "bias_hh"):
            cell.setdefault(kind, np.zeros(rows, np.float32))

    def _order(self, found):
        """The places (module, layer) of the LSTM layers, the first layer first."""
        modules = sorted({module for module, _ in found})
        if len({re.sub(r"\d+", "", module) for module in modules}) > 1:
            raise self._error(f"the names of its LSTMs, {', '.join(modules)}, don't say which comes first: number them")
        order = sorted(found, key=lambda place: (_numbers(place[0]), place[1]))
        for before, after in pairwise(order):
            size, inputs = found[before]["weight_hh"].shape[1], found[after]["weight_ih"].shape[1]
            if size != inputs:
                raise self._error(f"an LSTM of {size} outputs comes before one of {inputs} inputs: they are not stacked")
        return order

    def _around(self, others, inputs, outputs):
        """The embedding (V, D) or None, and the linear layer {"weight": (V, H), "bias": (V,)}."""
        linear: dict[str, dict] = {}
        tables: dict[str, dict] = {}
        biases: dict[str, dict] = {}
        for module, kinds in others.items():
            for kind, array in kinds.items():
                if array.ndim != {"weight": 2, "bias": 1}.get(kind):
                    name = ".".join(filter(None, (module, kind)))
                    raise self._error(f"{name}: is of no nn.LSTM, nn.Linear or nn.Embedding, and nothing else is imported")
            place = linear if len(kinds) == 2 else tables if "weight" in kinds else biases
            place[module] = kinds
        heads = linear or self._without_bias(tables, biases)
        if len(heads) != 1 or len(tables) > 1 or (linear and biases):
            named = ", ".join(module or "weight" for module in sorted([*heads, *tables, *biases])) or "nothing"
            raise self._error(f"beside its LSTM there must be one nn.Linear, and at most one nn.Embedding; there is {named}")
        (head,) = heads.values()
        (embedding,) = (table["weight"] for table in tables.values()) if tables else (None,)
        if embedding is not None and (embedding.shape[1] != inputs or embedding.dtype.kind != "f"):
            (name,) = tables
            raise self._error(f"{name}: gives {embedding.shape[1]} numbers for a symbol, and the LSTM takes {inputs}")
        if head["weight"].shape[1] != outputs:
            raise self._error(f"{next(iter(heads))}: takes {head['weight'].shape[1]} numbers, and the LSTM gives {outputs}")
        return embedding, {"bias": np.zeros(len(head["weight"]), np.float32), **head}

    def _without_bias(self, tables, biases):
        """The linear layers where none has both a weight and a bias; what is left in ``tables`` are embeddings."""
        if len(biases) == len(tables) == 1:  # tied weights: the file has them once, under the embedding's name
            (module, kinds), (table,) = biases.popitem(), tables.values()
            return {module: table | kinds}
        heads = [name for name in tables if len(tables) == 1 or not EMBEDDING.search(name)]
        return {name: tables.pop(name) for name in heads}


def _numbers(name):
    return [float(number) for number in re.findall(r"\d+", name)]  # unlike int() it takes any number of digits
