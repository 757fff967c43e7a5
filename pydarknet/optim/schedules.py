"""The learning rate as a function of the batch number: Darknet's policies, and two of our own.

With n the batch number (1 at the first update, see :meth:`Schedule.rate`), N ``max_batches`` and r ``learning_rate``:

    every policy  n < burn_in: r (n / burn_in)^power    the warm-up; after it, by policy:
    constant      r
    step          r scale^floor(n / step)
    steps         r times scales[i] for every i with steps[i] <= n, up to the first that is not
    exp           r gamma^n
    poly          r (1 - n/N)^power
    sigmoid       r / (1 + exp(gamma (n - step)))
    random        r u^power, u uniform in [0, 1), drawn anew at each call
    sgdr          m + (r - m) (1 + cos(pi k/K)) / 2     k of K batches into a cycle; m = learning_rate_min
    cosine        m + (r - m) (1 + cos(pi p)) / 2       p = (n - burn_in) / (N - burn_in)
    linear        m + (r - m) (1 - p)

``sgdr`` is AlexeyAB's. Its first cycle has ``sgdr_cycle`` batches (default N), each later one ``sgdr_mult`` (default 2)
times those of the one before, and m is .00001 by default. ``cosine`` and ``linear`` are pydarknet's: one fall from r at
the end of the warm-up to m (default 0) at batch N. Darknet takes their names for an unknown policy and keeps the rate
constant, and does not know their key ``learning_rate_min`` (AlexeyAB's does).
"""

import math
from dataclasses import dataclass
from typing import Any

from pydarknet.darknet.cfg import Section
from pydarknet.errors import InputError, TrainingError

POLICIES = ("constant", "step", "steps", "exp", "poly", "sigmoid", "random", "sgdr", "cosine", "linear")


@dataclass(frozen=True)
class Schedule:
    """A learning-rate policy with its numbers, named and defaulting as in Darknet's ``[net]``.

    Frozen: for another ``max_batches`` take ``dataclasses.replace(schedule, max_batches=...)``.
    """

    learning_rate: float = 0.001
    policy: str = "constant"
    burn_in: int = 0
    power: float = 4.0
    max_batches: int = 0
    step: int = 1
    scale: float = 1.0
    steps: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    gamma: float = 1.0
    learning_rate_min: float = 0.0
    sgdr_cycle: int | None = None  # None: max_batches
    sgdr_mult: int = 2

    @classmethod
    def from_section(cls, net: Section) -> "Schedule":
        """Read the schedule of a ``[net]`` section: only the keys of its policy, so that the others are reported as unused.

        Raises :class:`~pydarknet.errors.CfgError` for an unknown policy, a number out of its range, and a ``steps``
        policy without as many ``scales`` as ``steps`` (where Darknet reads beyond the text).
        Source: ``parse_net_options``, ``get_policy`` in ``src/parser.c``.
        """
        policy = net.choice("policy", cls.policy, POLICIES)
        learning_rate = net.number("learning_rate", cls.learning_rate, minimum=0)
        of_policy: dict[str, Any] = {}
        if policy in ("step", "sigmoid"):
            of_policy["step"] = net.integer("step", cls.step, minimum=1 if policy == "step" else 0)
        if policy == "step":
            of_policy["scale"] = net.number("scale", cls.scale, minimum=0)
        elif policy == "steps":
            of_policy["steps"], of_policy["scales"] = _steps_and_scales(net)
        elif policy == "exp":
            of_policy["gamma"] = net.number("gamma", cls.gamma, minimum=0)
        elif policy == "sigmoid":
            of_policy["gamma"] = net.number("gamma", cls.gamma)  # below zero, the rate rises towards r
        elif policy == "sgdr":
            of_policy["learning_rate_min"] = net.number("learning_rate_min", 0.00001, minimum=0)
            of_policy["sgdr_cycle"] = net.integer("sgdr_cycle", cls.sgdr_cycle, minimum=1)
            of_policy["sgdr_mult"] = net.integer("sgdr_mult", cls.sgdr_mult, minimum=1)
        elif policy in ("cosine", "linear"):
            of_policy["learning_rate_min"] = net.number(
                "learning_rate_min", cls.learning_rate_min, minimum=0, maximum=learning_rate
            )
        return cls(
            learning_rate,
            policy,
            burn_in=net.integer("burn_in", cls.burn_in, minimum=0),
            power=net.number("power", cls.power, minimum=0),
            max_batches=net.integer("max_batches", cls.max_batches, minimum=0),
            **of_policy,
        )

    def rate(self, batch_number: int, random=None) -> float:
        """The learning rate of the update that ends batch ``batch_number``.

        Darknet adds a batch to ``seen`` before it reads the rate, so the first update has batch number 1; the warm-up
        of ``burn_in=1`` is therefore none at all. ``random`` is a numpy ``Generator``, needed by ``policy=random``.

        Raises :class:`~pydarknet.errors.TrainingError` when a policy that falls towards ``max_batches`` has none, or
        when the rate overflows, and :class:`~pydarknet.errors.InputError` for a policy that nobody knows or a missing
        ``random``. Source: ``get_current_rate`` in ``src/network.c``.
        """
        if self.policy not in POLICIES:
            raise InputError(f"policy={self.policy!r} is not one of {', '.join(POLICIES)}")
        # Said at the first batch, not when the warm-up is over and work would be lost.
        if self._length() == 0:
            raise TrainingError(f"policy={self.policy} falls towards max_batches, which is 0: set max_batches in [net]")
        try:
            rate = self._rate(batch_number, random)
        except OverflowError:
            rate = math.inf
        if not math.isfinite(rate):
            raise TrainingError(
                f"the learning rate overflows at batch {batch_number} with policy={self.policy}: "
                "lower its scale, scales or gamma in [net]"
            )
        return rate

    def _rate(self, n: int, random) -> float:
        r, m = self.learning_rate, self.learning_rate_min
        if n < self.burn_in:
            return r * (n / self.burn_in) ** self.power
        match self.policy:
            case "constant":
                return r
            case "step":
                return r * self.scale ** (n // self.step)
            case "steps":
                for step, scale in zip(self.steps, self.scales, strict=True):
                    if step > n:
                        break
                    r *= scale
                return r
            case "exp":
                return r * self.gamma**n
            case "poly":
                # Past the end the base is negative: Darknet's rate grows again, or is NaN for a fractional power.
                return r * (1 - n / self.max_batches) ** self.power if n < self.max_batches else 0.0
            case "sigmoid":
                # n - step is signed, as at AlexeyAB; pjreddie's is unsigned and wraps to a huge number below step.
                return r * _logistic(self.gamma * (self.step - n))
            case "random":
                if random is None:
                    raise InputError("policy=random needs a random generator: give rate() a numpy Generator")
                return r * random.random() ** self.power
            case "sgdr":
                return m + (r - m) * _half_cosine(self._progress_in_cycle(n))
            case "cosine":
                return m + (r - m) * _half_cosine(self._progress(n))
            case _:  # linear
                return m + (r - m) * (1 - self._progress(n))

    def _length(self) -> int | None:
        """The batches that the policy's (first) fall takes; None when it has no end to fall to."""
        if self.policy == "sgdr" and self.sgdr_cycle is not None:
            return self.sgdr_cycle
        return self.max_batches if self.policy in ("poly", "sgdr", "cosine", "linear") else None

    def _progress(self, n: int) -> float:
        """How far batch n is from the end of the warm-up (0) to the last batch (1)."""
        return (n - self.burn_in) / (self.max_batches - self.burn_in) if n < self.max_batches else 1.0

    def _progress_in_cycle(self, n: int) -> float:
        """How far batch n is into its sgdr cycle; a cycle ends with its last batch at 1, it does not begin at 0."""
        start, cycle = 0, self.sgdr_cycle or self.max_batches
        if self.sgdr_mult == 1:  # the loop below would take n / cycle turns
            start = max(0, math.ceil(n / cycle) - 1) * cycle
        while start + cycle < n:
            start += cycle
            cycle *= self.sgdr_mult
        return (n - start) / cycle


def _steps_and_scales(net: Section) -> tuple[tuple[int, ...], tuple[float, ...]]:
    steps, scales = net.integers("steps"), net.numbers("scales")
    for key in ("steps", "scales"):
        if not net.has(key):
            raise net.error(f"policy=steps needs {key}=..., a list with commas between", "policy")
    if len(steps) != len(scales):
        raise net.error(
            f"the list of steps has {len(steps)}, the list of scales {len(scales)}: give each step its scale", "scales"
        )
    if steps != sorted(steps):
        net.warn(
            "steps are not in ascending order: as in Darknet, those after the first that is still to come wait for it", "steps"
        )
    if min(steps) < 0 or min(scales) < 0:
        key = "steps" if min(steps) < 0 else "scales"
        raise net.error(f"{key} holds a number below 0: a batch number or a factor of the rate is at least 0", key)
    return tuple(steps), tuple(scales)


def _logistic(x: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _half_cosine(progress: float) -> float:
    """From 1 at progress 0 down to 0 at progress 1."""
    return (1 + math.cos(math.pi * progress)) / 2
