"""A cfg made for a text, a machine and a time: what ``pydarknet train novel.txt`` trains.

The size is the one thing that must fit all three. A larger layer learns more from a character, and sees fewer of them in
the same time; and a text that is read too often is learned by heart. :func:`expected_loss` says what a size comes to after
so many characters of such a text; a trial says how many this machine can do; the size with the lowest expected loss is
taken. Streams, rates and dropout follow from it. docs/recipes.md shows the measurements behind every number here.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydarknet.darknet.cfg import Cfg, parse_cfg_text
from pydarknet.errors import TextError, TrainingError
from pydarknet.network import load_network
from pydarknet.sharing import sharing_of_training
from pydarknet.system.files import show
from pydarknet.text.corpus import Corpus
from pydarknet.text.utf8 import is_ascii
from pydarknet.training.processes import stream_processes
from pydarknet.training.trainer import Trainer
from pydarknet.training.validation import FORWARD

MINUTES = 5.0  # that a run takes unless it is told otherwise
SIZES = 64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024
BATCHES = (16, 32), (32, 32), (32, 64), (64, 64)  # streams and steps
LARGER_BATCHES = 1e6, 5e6, 30e6  # and from how many characters on each of the others
INPUT_RATE = 5.0  # a factor on the rate
OUTPUT_RATE, SHORT_RUN = 3.0, 2e6  # another, for runs of fewer characters; it does harm in longer ones
SIZE, TRAINED = 20.5, 350.0  # of expected_loss
PASSES = 2.0  # that bring something new, after the first: of expected_loss
WEIGHT_DROPOUT, OUTPUT_DROPOUT = (0.08, 2.0, 0.5), (0.065, 0.3, 0.5)  # of dropout: factor, where it begins, the most
LARGEST = 1.0  # units of a layer, by the square root of the text's length
HELD_OUT = 20_000, 100_000  # characters, of a short and of a long text: enough to know its loss to about .02 and .01 nats
HELD_OUT_PARTS, SHORTEST_PART = 5, 1000  # how many places they come from, and characters of each
MEASURING = 0.03  # the share of the time that goes into measuring by the held-out part, at most
TRYING, TIMING = 0.004, 0.03  # the shares that go into trying a size, and into timing the one that is chosen
OTHERS = 0.04  # the share that goes into samples, checkpoints, and measurements that only one process makes
LONGEST = 3.0, 20.0  # seconds, at most, of trying and of timing


@dataclass(frozen=True)
class Recipe:
    """A network of one GRU and how to train it: the numbers of a cfg, under their names there, and ``why`` in three lines."""

    inputs: int
    output: int
    streams: int
    steps: int
    weight_dropout: float
    output_dropout: float
    learning_rate: float
    output_rate: float
    max_batches: int
    why: tuple[str, ...] = ()

    def text(self) -> str:
        """The cfg, commented."""
        less = "# So much of the state's matrix is left out of each update: the text is harder to learn by heart."
        weights = [less, f"weight_dropout={self.weight_dropout:.2g}"] if self.weight_dropout else []
        lines = [
            *(f"# {line}" for line in self.why),
            "[net]",
            f"inputs={self.inputs}",
            "# So many streams read the text side by side; time_steps characters of each make an update.",
            f"batch={self.streams}",
            f"time_steps={self.steps}",
            "# The streams begin at equal distances and never jump: all of the text is read equally often.",
            "jump=0",
            "adam=1",
            "B1=.5",
            "B2=.99",
            "decay=0",
            "clip_norm=1",
            "# The rate rises over the first updates, and falls to nothing until the last.",
            f"learning_rate={self.learning_rate:.3g}",
            "policy=cosine",
            f"burn_in={max(1, min(100, self.max_batches // 20))}",
            "power=1",
            f"max_batches={self.max_batches}",
            "",
            "[gru]",
            f"output={self.output}",
            "tanh=1",
            "# A symbol's column of the input matrix learns only where that symbol stands: it takes larger steps.",
            f"input_rate={INPUT_RATE:g}",
            *weights,
            "",
            "[dropout]",
            f"probability={self.output_dropout:.2g}",
            "",
            "[connected]",
            f"output={self.inputs}",
            "activation=linear",
            *([f"learning_rate={self.output_rate:g}"] if self.output_rate != 1 else []),
            "",
            "[softmax]",
        ]
        return "\n".join(lines) + "\n"

    def cfg(self, path: str) -> Cfg:
        """The cfg as if it had been read at ``path``."""
        return parse_cfg_text(self.text(), path)


def make_recipe(
    corpus: Corpus,
    held_out: int,
    seconds: float,
    gradients: Callable | None = None,
    trying: Callable[[int], object] = lambda output: None,
    settings: Sequence[str] = (),
) -> Recipe:
    """The :class:`Recipe` for training on ``corpus`` here for ``seconds``, measured by ``held_out`` other characters.

    A size in the middle is tried, then the one that its speed points to, then neighbours, for as long as they are better.
    ``gradients`` makes the context that gives the ``train_call`` of a network, as the run will have it; by default
    processes, where these are faster. ``trying`` hears of each size when its turn comes. The iterations are those of a
    network with ``settings`` (:meth:`pydarknet.darknet.cfg.Cfg.set`). Raises TextError for a text that is too short,
    CfgError for a wrong setting.
    """
    gradients = gradients or _in_processes
    begun, seconds = time.perf_counter(), max(seconds, 1.0)
    length, inputs = len(corpus), vocabulary(corpus)
    least = BATCHES[-1][1] + 1
    if length < least:
        raise TextError(
            f"{corpus.title}: too short to choose a network by: without what is held out it has {length} "
            f"{corpus.unit}s, and {least} are the least; give a longer text, or a cfg"
        )
    # A mistake in the settings is told before the trials.
    if settings and _network(_candidate(inputs, SIZES[0], BATCHES[0]), settings).schedule.max_batches == 0:
        raise TrainingError("--set net.max_batches=0: to Darknet that means no training: give another number, or leave it out")
    tried: dict[int, _Tried] = {}

    def at(place, near=None):
        output = SIZES[place]
        if output not in tried:
            trying(output)
            batch = batch_of(near.with_units(output).characters) if near else BATCHES[1]
            tried[output] = _try(corpus, inputs, output, batch, seconds, min(seconds * TRYING, LONGEST[0]), gradients)
        return tried[output]

    first = at(len(SIZES) // 2)
    place = min(range(len(SIZES)), key=lambda n: first.with_units(SIZES[n]).expected)
    best = at(place, near=first)
    for step in 1, -1:
        while 0 <= place + step < len(SIZES) and at(place + step, near=best) < best:
            place += step
            best = at(place)
    trying(best.output)
    longer = min(seconds * TIMING, LONGEST[1])  # it sets the length of the run
    best = _try(corpus, inputs, best.output, batch_of(best.characters), seconds, longer, gradients, settings)
    left = max(seconds - (time.perf_counter() - begun), seconds / 10)  # a busy machine may have spent all on the trials
    best.characters = int(best.speed * left * (1 - MEASURING - OTHERS))
    recipe = best.recipe()
    if settings:  # one of them may be the number of iterations
        best.characters = _network(recipe, settings).schedule.max_batches * math.prod(best.batch)
        recipe = best.recipe()
    return replace(recipe, why=_why(corpus, held_out, recipe, best, sorted(tried)))


def _candidate(inputs, output, batch):
    """A network to try. Dropout takes time too: some of it, as the run will most likely have."""
    streams, steps = batch
    return Recipe(inputs, output, streams, steps, 0.1, 0.3, 1e-6, 1.0, 10**6)


def _network(recipe, settings=()):
    return load_network(recipe.cfg("the network that is chosen"), srand=1, settings=settings)


def _in_processes(network):
    return stream_processes(network, sharing_of_training(network).processes)


@dataclass
class _Tried:
    """A size that has been tried: ``speed`` in characters a second, ``characters`` in the time that there is."""

    length: int
    inputs: int
    output: int
    batch: tuple[int, int]
    speed: float
    characters: int

    @property
    def expected(self):
        return expected_loss(self.output, self.characters, self.length)

    def __lt__(self, other):
        return self.expected < other.expected

    @property
    def multiplications(self):
        """Of a character: those of W and of the output layer. The input is one-hot: of U, a column is picked."""
        return self.output * (3 * self.output + self.inputs)

    @property
    def parameters(self):
        return self.multiplications + 3 * self.output * self.inputs

    def with_units(self, output):
        """Another size, as it would be with as many multiplications a second."""
        other = replace(self, output=output)
        share = self.multiplications / other.multiplications
        return replace(other, speed=self.speed * share, characters=int(self.characters * share))

    def recipe(self):
        drops = dropout(self.parameters, self.characters / self.length, self.length)
        rates = learning_rate(self.output), output_rate(self.characters)
        max_batches = max(1, self.characters // math.prod(self.batch))
        return Recipe(self.inputs, self.output, *self.batch, *drops, *rates, max_batches)


def _try(corpus, inputs, output, batch, seconds, trial, gradients, settings=()):
    """Train a network of that size for a moment: for ``trial`` of the ``seconds`` that there are."""
    trial_of = (*settings, "net.learning_rate=1e-6", "net.max_batches=1000000")
    network = _network(_candidate(inputs, output, batch), trial_of)
    batch = network.streams * network.subdivisions, network.time_steps
    with gradients(network) as train_call:
        steps = Trainer(network, corpus, srand=1, train_call=train_call).run()
        for _ in range(2):  # which take memory, and start the processes
            next(steps)
        begun, count = time.perf_counter(), 0
        while count < 3 or time.perf_counter() - begun < trial:
            next(steps)
            count += 1
        speed = count * math.prod(batch) / (time.perf_counter() - begun)
    return _Tried(len(corpus), inputs, output, batch, speed, int(speed * seconds))


def _why(corpus, held_out, recipe, best, tried):
    smaller = [size for size in tried if size < best.output]
    larger = [size for size in tried if size > best.output]
    passes = recipe.max_batches * recipe.streams * recipe.steps / len(corpus)
    units = "characters" if corpus.unit == "byte" and recipe.inputs == 128 else f"{corpus.unit}s"
    others = [f"{size} too small" for size in smaller[-1:]] + [f"{size} too large" for size in larger[:1]]
    return (
        f"{corpus.title}: {len(corpus):,} {units} to learn from, {held_out:,} held out",
        f"a GRU of {best.output} ({best.speed:,.0f} {units}/s)"
        + (f": {', '.join(others).replace(' too', ' is too', 1)}" if others else ""),
        f"{_counted(passes, 'pass', 'passes')} in {_counted(recipe.max_batches, 'iteration', 'iterations')}, "
        f"rate {recipe.learning_rate:.2g}, dropout {recipe.weight_dropout:.2g} and {recipe.output_dropout:.2g}",
    )


def _counted(number, one, many):
    text = f"{number:{',.0f' if number >= 10 else '.2g'}}"
    return f"{text} {one if text == '1' else many}"


def expected_loss(output: int, characters: float, length: int) -> float:
    """What a GRU of ``output`` units comes to that was trained on so many ``characters`` of a text of ``length``.

    In nats a character, up to a constant of the text: only differences mean something. For H units, C characters and r = C / n
    passes of a text of n, of which those after the first count for less and less:

        20.5 / H + 350 / √C'      C' = C up to a pass, then n (1 + 2 (1 - e^(-(r - 1) / 2)))

    A layer that is large for its text learns it by heart, so its size is bounded. Fitted to runs of four texts, of 96 to 1024
    units and one to fourteen million characters. Source of the form of C': N. Muennighoff et al., "Scaling data-constrained
    language models", 2023.
    """
    again = max(0.0, characters / length - 1)
    fresh = min(characters, length) + length * PASSES * (1 - math.exp(-again / PASSES))
    too_large = max(0.0, output / (LARGEST * length**0.5) - 1)
    return SIZE / output + TRAINED / fresh**0.5 + too_large


def batch_of(characters: float) -> tuple[int, int]:
    """The streams and steps that suit a run.

    A small batch makes more updates, of which a run wants some thousands; then more streams are faster, and more steps let a
    gradient reach further back.
    """
    return BATCHES[sum(characters > limit for limit in LARGER_BATCHES)]


def learning_rate(output: int) -> float:
    """Adam's rate: lower for a larger layer, whose products add up more terms."""
    return 0.008 * (160 / output) ** 0.6


def output_rate(characters: float) -> float:
    """The factor on the rate of the output layer."""
    return OUTPUT_RATE if characters < SHORT_RUN else 1.0


def dropout(parameters: int, passes: float, length: int) -> tuple[float, float]:
    """The shares of the weights that multiply the state, and of the outputs, to drop.

    More, the more often ``parameters`` that are many for the text read it: those could learn it by heart.
    """
    by_heart = parameters * passes / length

    def share(factor, begins, most):
        return round(min(max(factor * math.log(by_heart / begins), 0.0), most), 2)

    return share(*WEIGHT_DROPOUT), share(*OUTPUT_DROPOUT)


def held_out_of(length: int) -> tuple[float, int]:
    """What is held out of a text of ``length`` where the user does not say: the fraction, and from how many places.

    From several, as the last part alone may be a play or a chapter whose people stand nowhere else.
    """
    count = min(max(length / 40, min(HELD_OUT[0], length / 10)), HELD_OUT[1])
    return float(f"{count / length:.2g}"), max(1, min(HELD_OUT_PARTS, int(count / SHORTEST_PART)))


def measurements_every(held_out: int, streams: int, time_steps: int) -> int:
    """The interval of measurements, in iterations, that keeps them to :data:`MEASURING` of the time."""
    return max(20, math.ceil(held_out * FORWARD / (streams * time_steps * MEASURING)))


def vocabulary(corpus: Corpus) -> int:
    """The number of symbols that a network of this text needs.

    Of bytes 128 if all are ASCII, else 256; of tokens the largest number plus one.
    """
    if corpus.max_symbol != 255:
        return corpus.max_symbol + 1
    return 128 if is_ascii(corpus) else 256


def cfg_to_save(cfg: Cfg, recipe: Recipe | None) -> str | None:
    """The text of a cfg to keep beside the weights: a recipe's, or with settings; None where the cfg's own file will do."""
    if not recipe and not cfg.changed:
        return None
    origin = [] if recipe else [show(cfg.path)]
    head = (*origin, *(f"--set {show(setting)}" for setting in cfg.settings))
    return "".join(f"# {line}\n" for line in head) + cfg.text_as_set()
