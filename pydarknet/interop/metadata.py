"""What a file says of a network beside its tensors, so that ``pydarknet import`` makes the very same files of it again."""

import warnings
from typing import NamedTuple

from pydarknet import __version__
from pydarknet.darknet.cfg import Cfg, parse_cfg_text
from pydarknet.darknet.dialect import Dialect
from pydarknet.darknet.weights import write_weights
from pydarknet.errors import CfgWarning, PydarknetError, WeightsError
from pydarknet.interop.tensors import take
from pydarknet.network import Network
from pydarknet.system.files import check_writable, open_regular, reported, show, write_atomically


class Imported(NamedTuple):
    """A network out of a file, with the text of its ``cfg`` and the ``version`` that the header of its weights file had."""

    network: Network
    cfg: str
    version: tuple[int, int, int]

    def write(self, cfg_path, weights_path):
        """Write both files of Darknet's, each atomically, or neither if one can't be written. Raises WeightsError."""
        with reported(WeightsError, cfg_path, "cannot write the cfg"):
            check_writable(cfg_path)
        for layer in self.network.layers:
            layer.dontsave = False  # the file is what the cfg reads
        write_weights(self.network.layers, weights_path, self.network.seen, self.network.dialect, self.version)
        with reported(WeightsError, cfg_path, "cannot write the cfg"):
            write_atomically(cfg_path, [self.cfg.encode()])


def metadata(network, version=None):
    """Strings: the cfg's text, the dialect, ``seen`` and the ``version`` of the weights file's header, and pydarknet's own."""
    return {
        "format": "pt",  # which other programs ask for: the names are PyTorch's
        "pydarknet": __version__,
        "cfg": cfg_text(network.cfg),
        "dialect": network.dialect.value,
        "seen": str(network.seen),
        "weights_version": ".".join(map(str, version or network.dialect.version)),
    }


def is_ours(facts):
    """Whether the metadata ``facts`` are those of :func:`metadata`."""
    return "pydarknet" in facts


def network_of(given, facts, path):
    """The :class:`Imported` of the tensors ``given`` and the metadata ``facts``, both of the file at ``path``.

    Raises WeightsError for what is damaged or doesn't fit, CfgError for a cfg that this version can't read.
    """
    shown = show(path)
    try:
        cfg, dialect, seen = facts["cfg"], Dialect(facts["dialect"]), int(facts["seen"])
        major, minor, revision = (int(number) for number in facts["weights_version"].split("."))
        if not (0 <= seen < 2**64 and min(major, minor, revision) >= 0 and max(major, minor, revision) < 2**31):
            raise ValueError
    except (KeyError, ValueError):
        raise WeightsError(f"{shown}: its metadata (cfg, dialect, seen, weights_version) is incomplete or damaged") from None
    network = Network(parse_cfg_text(cfg, f"cfg of {path}"), dialect=dialect)
    take(network, given, shown)
    network.seen = seen
    return Imported(network, cfg, (major, minor, revision))


def cfg_text(cfg: Cfg):
    """The text of ``cfg``: that of its file with the comments, or, when that says something else now, one of its own."""
    try:
        with open_regular(cfg.path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", CfgWarning)  # they have been told
            text = _decoded(file.read())
            if _contents(parse_cfg_text(text, cfg.path)) == _contents(cfg):
                return text
    except (OSError, ValueError, PydarknetError):
        pass  # there is no such file any more
    return cfg.as_text()


def _decoded(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")  # a comment of those days


def _contents(cfg):
    return [(each.name, [(key, value) for key, (value, _) in each.options.items()]) for each in (cfg.net, *cfg.layers)]
