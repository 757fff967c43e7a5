"""The loop over time of a gated recurrent layer, written once: what an LSTM and a GRU have in common.

A layer's file gives the equations of one step; this module calls them with ``z = U x + W h₋₁ + b`` in
place, and does the rest: the input product, the products with W, batch norm, the state that is carried in
and out, the gradients of the matrices, one step at a time for writing text, and threads.

The gates are computed as one. U (GH, D), W (GH, H) and b (GH,) hold the G gates one after the other, in the
order of :attr:`Gated.gates`: rows 0..H are the first gate's. A step keeps its gates apart, (G, B, H), so that
each is one run of memory, and neighbouring gates are one array too (:attr:`Gated.together`).

Threads share out the units of a layer, each with a :class:`Part` of its own: its columns of h, its rows of
U, W and b. All it needs of the others is their h, so they meet once a step; on the way back it is their dz.
Steps are treated in blocks, where a product or an operation does not depend on the recurrence.
"""

import weakref
from functools import partial
from types import SimpleNamespace

import numpy as np

from pydarknet.darknet.dialect import PJREDDIE, Dialect
from pydarknet.layers.batchnorm import BatchNorm
from pydarknet.layers.input_product import InputProduct
from pydarknet.layers.layer import Buffer, Layer, Matrix, flat
from pydarknet.system.threads import ALONE


class Gated(Layer):
    """A layer of B independent gated units with shared weights: input (T, B, D), output (T, B, H).

    Parameters of the constructor: ``inputs`` D, ``outputs`` H (Darknet's ``output``), ``batch_normalize``
    (Darknet's key: every product is normalised over the streams of its step), and ``random``, a numpy
    Generator for the initial weights. ``matrices`` holds Darknet's connected layers by name: ``ui`` is
    gate i's matrix for x, ``wi`` that for h. The states, each (B, H), are carried from call to call;
    after ``backward``, ``dh0`` (and ``dc0``) are the gradients of those that ``forward`` began with.
    """

    gates = ""  # a letter each, in the order of the rows of U, W and b
    darknet_gates: str | None = None  # Darknet's letters for them, where they are others
    late = ""  # the last gates, whose W multiplies a vector v of the step's own, not h₋₁
    together: tuple[str, ...] = ()  # neighbouring gates that a step treats as one array
    kept: tuple[str, ...] = ()  # what else a step computes that backward reads
    slopes_of = ""  # letters of what has a slope: the gates, and perhaps more
    passes_by = False  # whether something goes back to h₋₁ other than through W
    file_order: dict[Dialect, list[str]] = {}  # by dialect, the names of the matrices in the order of the weights file
    takes_one_hot = True

    def __init__(self, inputs, outputs, batch_normalize=False, dtype=np.float32, random=None):
        super().__init__(inputs, outputs, dtype)
        D, H, rows = inputs, outputs, len(self.gates) * outputs
        self.U = self._parameter("U", (rows, D), decayed=True)
        self.W = self._parameter("W", (rows, H), decayed=True)
        self.input_weights, self.state_weights = self.U, self.W
        # Darknet keeps a bias with each of the two; their sum is the b of the equations.
        self.u_biases = self._parameter("u.biases", (rows,), decayed=False)
        self.w_biases = self._parameter("w.biases", (rows,), decayed=False)
        self.u_norm = BatchNorm(self, "u", rows) if batch_normalize else None
        self.w_norm = BatchNorm(self, "w", rows) if batch_normalize else None
        for name in self.file_order[PJREDDIE]:
            gate = (self.darknet_gates or self.gates).index(name[1])
            owned = (self.U, self.u_biases, self.u_norm) if name[0] == "u" else (self.W, self.w_biases, self.w_norm)
            self.matrices[name] = Matrix(name, *owned, slice(gate * H, (gate + 1) * H))
        if random is not None:
            self.initialize(random)
        self._input = InputProduct(self.U, len(self.gates))
        self._tape = None

    # The equations, which a subclass gives. ``s`` names the arrays of one step, (B, H), or (gates, B, H) of gates together.

    def forward_step(self, s):
        """The gates from the sums z = U x + W h₋₁ + b, which stand in their place; then the new states.

        ``s`` has the gates and what is ``together``, the states (``h``, ``c``) and those before the step (``h_``, ``c_``),
        what is ``kept``, and a ``spare`` one. ``s.late_product()`` puts the sums of the late gates, which multiply ``s.v``,
        in their place.
        """
        raise NotImplementedError

    def backward_step(self, s):
        """``dz_`` of each gate from ``dh``, and from the gradients of the other states (``dc``) those before the step.

        ``s`` also has the slopes (``slope_`` and a letter), the gates, ``spare``, and ``passed``, for what goes by W.
        ``s.late_product_back()`` computes ``dv`` from ``dz_`` of the late gates.
        """
        raise NotImplementedError

    def slopes(self, s):
        """``slope_`` of each: what backward multiplies with, for a block of S steps at once. The arrays have S in front."""
        raise NotImplementedError

    # All steps

    def forward(self, x, train=False, team=ALONE):
        T, B, _ = x.shape
        if self._tape is None or self._tape.shape != (T, B, team.count):
            self._tape = Tape(self, T, B, team)
        tape, state = self._tape, self.state(B)
        normalize = train and self.u_norm is not None
        U, W, b = self._weights(fold=not train)
        self._input.begin(x)
        tape.h[0] = state["h"]
        if normalize:
            for part in tape.parts:
                part.make_norms()                   # not in the threads: who first reads a statistic makes its memory
        team.run(lambda n, meet: tape.parts[n].forward(U, W, b, state, normalize, meet))
        state["h"][...] = tape.h[T]
        return tape.h[1:]

    def backward(self, dy, want_dx=True, team=ALONE):
        tape, early = self._tape, self.outputs * (len(self.gates) - len(self.late))
        tape.start_back()
        team.run(lambda n, meet: tape.parts[n].backward(self.W.value, dy, meet))
        for name in self.states:
            setattr(self, f"d{name}0", np.concatenate([part.d_states[name] for part in tape.parts], axis=1))
        dWh, dW = flat(tape.dWh), tape.dW
        team.product(dWh[:, :early].T, flat(tape.h[:-1]), out=dW[:early])    # dW = Σ dz h₋₁ᵀ
        if self.late:
            team.product(dWh[:, early:].T, flat(tape.v), out=dW[early:])     # of the late gates Σ dz vᵀ
        self.W.gradient += dW
        db = tape.bias_gradients()                                           # db = Σ dz
        self.w_biases.gradient += db
        self.u_biases.gradient += db
        return self._input.backward(tape.dUx, want_dx, team)                 # dU = Σ dz xᵀ, dx = Uᵀ dz

    def stepper(self, streams, one_hot):
        B, H, G = streams, self.outputs, len(self.gates)
        early = H * (G - len(self.late))
        U, W, b = self._weights(fold=True)
        W_early, W_late = np.ascontiguousarray(W[:early].T), np.ascontiguousarray(W[early:].T)
        z, v, state = np.empty((B, G * H), self.dtype), np.empty((B, H), self.dtype), self.state(B)
        z_early, z_late = z[:, :early], z[:, early:]
        h, Ux = state["h"], np.empty_like(z)
        project = self._input.stepper(U, b, B, one_hot)

        def late_product():
            np.matmul(v, W_late, out=z_late)
            np.add(z_late, Ux[:, early:], out=z_late)

        states = {name + after: array for name, array in state.items() for after in ("", "_")}  # overwritten in place
        others = {name: np.empty((B, H), self.dtype) for name in (*self.kept, "spare")}
        gates = self._views(z.reshape(B, G, H).swapaxes(0, 1), self.gates)
        s = SimpleNamespace(**gates, **states, **others, v=v, late_product=late_product)

        def step(x):
            nonlocal Ux
            Ux = project(x)
            np.matmul(h, W_early, out=z_early)
            np.add(z_early, Ux[:, :early], out=z_early)
            self.forward_step(s)
            return h

        return step

    def trace(self):
        """What the last ``forward`` computed at each step, by name: gates, states and what is kept, each (T, B, H)."""
        parts = [part.arrays for part in self._tape.parts]
        return {name: np.concatenate([arrays[name] for arrays in parts], axis=-1)
                for name in (*self.gates, *self.states, *self.kept)}

    def stored(self, dialect):
        return [array for name in self.file_order[dialect] for array in self.matrices[name].stored()]

    def tape_bytes(self, T, B):
        arrays = 2 * len(self.gates) + len(self.states) + len(self.kept) + len(self.late)  # gates and dz, and the rest
        return T * (arrays * B * self.outputs * self.dtype.itemsize + 4000)  # and, for each step, the objects that name them

    @property
    def recurrent_weights(self):
        return self.W.size

    def _weights(self, fold):
        """U, W and b (GH,); with ``fold`` batch norm is folded in."""
        U, W, b = self.U.value, self.W.value, self.u_biases.value + self.w_biases.value
        if fold and self.u_norm is not None:
            U, b = self.u_norm.fold(U, b, self.dialect)
            W, b = self.w_norm.fold(W, b, self.dialect)
        return U, W, b

    def _views(self, array, letters, prefix=""):
        """Names for the matrices of ``array`` (..., letters, B, H): each by its letter, and those that are ``together``."""
        views = {prefix + letter: array[..., n, :, :] for n, letter in enumerate(letters)}
        for run in self.together:
            n = letters.index(run)
            views[prefix + run] = array[..., n:n + len(run), :, :]
        return views


class Tape:
    """The memory of a forward and a backward pass over T steps of B streams, made once per shape and used again.

    ``h`` (T+1, B, H): h[t] is the output before step t, h[0] the carried one. ``v`` (T, B, H) is what W of the late gates
    multiplies. ``dWh`` and ``dUx`` (T, B, GH) are d(loss)/d(W h₋₁) and d(loss)/d(U x): without batch norm both are dz.
    """

    def __init__(self, layer, T, B, team):
        self.layer, self.shape = layer, (T, B, team.count)
        self.h = np.zeros((T + 1, B, layer.outputs), layer.dtype)
        self.v = np.zeros((T, B, layer.outputs), layer.dtype) if layer.late else None
        size = max(1, min(T, 256 // B))  # enough rows for a product at full speed, few enough for the processor's cache
        self.blocks = [slice(t, min(t + size, T)) for t in range(0, T, size)]
        self.parts = [Part(self, units) for units in team.shares(layer.outputs)]
        self.dW = None

    def start_back(self):
        """Make the memory of the backward pass, if it is the first: a network that only predicts never pays for it."""
        if self.dW is None:
            layer, (T, B, _) = self.layer, self.shape
            self.dW = np.empty(layer.W.shape, layer.dtype)
            self.dWh = np.zeros((T, B, len(self.dW)), layer.dtype)
            self.dUx = self.dWh if layer.u_norm is None else np.zeros_like(self.dWh)
            for part in self.parts:
                part.start_back(self)

    def bias_gradients(self):
        """Σ dz over all steps and streams, (GH,)."""
        if self.layer.u_norm is not None:
            return np.concatenate([part.db for part in self.parts], axis=-1).reshape(-1)
        dz = flat(self.dWh)
        return np.ones(len(dz), dz.dtype) @ dz  # twice as fast as a sum over the first axis (benchmarks/README.md)


class Part:
    """The ``units`` that one thread computes, a slice of the H: H' of them, with the arrays of every step by name."""

    def __init__(self, tape, units):
        layer, (T, B, _) = tape.layer, tape.shape
        self.layer, self.units, self.T = layer, units, T
        self.h, self.v, self.blocks = tape.h, tape.v, tape.blocks
        self.shape = B, units.stop - units.start
        self.gate_count = G = len(layer.gates)
        self.early, self.late = slice(G - len(layer.late)), slice(G - len(layer.late), None)
        gates = self._array(T, G)
        self.states = {name: self._array(T + 1) for name in layer.states if name != "h"}
        self.arrays = layer._views(gates, layer.gates) | {name: self._array(T) for name in layer.kept}
        for name, array in {"h": tape.h[..., units], **self.states}.items():
            self.arrays |= {name + "_": array[:-1], name: array[1:]}
        if layer.late:
            self.arrays["v"] = tape.v[..., units]
        self.W = np.empty((G, layer.outputs, self.shape[1]), layer.dtype)
        self.Wh, self.spare, self.buffer = self._array(G), self._array(), Buffer(layer.dtype)
        me = weakref.proxy(self)  # so that the memory of an old tape is free at once
        self.steps = [self._named(t, sums=gates[t, self.early], late_sums=gates[t, self.late],
                                  late_product=partial(Part._late_product, me, t)) for t in range(T)]
        self.norms = None

    def _array(self, *shape):
        return np.empty((*shape, *self.shape), self.layer.dtype)

    def _named(self, steps, **others):
        """What forward computes at ``steps``, one or a slice, by name, with ``others``."""
        return SimpleNamespace(**{name: array[steps] for name, array in self.arrays.items()}, **{"spare": self.spare} | others)

    def _by_gate(self, matrix):
        """The rows of these units of every gate: ``matrix`` (GH, ...) as (G, H', ...)."""
        return matrix.reshape(self.gate_count, -1, *matrix.shape[1:])[:, self.units]

    # Forward

    @np.errstate(over="ignore")  # e⁻ᶻ may be infinite: σ(z) is 0 then
    def forward(self, U, W, b, state, normalize, meet):
        """All steps of these units, from and to the ``state``; that of h is the tape's."""
        layer, units, h = self.layer, self.units, self.h
        # With the rows of W as columns a product of few streams takes down to half the time (benchmarks/README.md).
        np.copyto(self.W, self._by_gate(W).swapaxes(1, 2))
        self.meet, self.bias = meet, None
        if normalize:  # the bias is added after the norm
            self.bias, b = self._by_gate(b)[:, None], np.zeros_like(b)
        input_product = layer._input.part(U, b, self.buffer, units)
        for name, array in self.states.items():
            array[0] = state[name][:, units]
        W, Wh, forward_step = self.W[self.early], self.Wh[self.early], layer.forward_step
        for block in self.blocks:
            self.block, self.Ux = block, input_product(block)
            for t, Ux in enumerate(self.Ux[:, self.early], block.start):
                s = self.steps[t]
                np.matmul(h[t], W, out=Wh)
                if normalize:
                    self._normalize(t, self.early, Wh, Ux)
                np.add(Wh, Ux, out=s.sums)          # z = U x + W h₋₁ + b
                forward_step(s)
                meet()                              # the next step needs the h of all units
        for name, array in self.states.items():
            state[name][:, units] = array[-1]

    def _late_product(self, t):
        late = self.late
        Wv, Ux = self.Wh[late], self.Ux[t - self.block.start, late]
        self.meet()                                 # it needs the v of all units
        np.matmul(self.v[t], self.W[late], out=Wv)
        if self.bias is not None:
            self._normalize(t, late, Wv, Ux)
        np.add(Wv, Ux, out=self.steps[t].late_sums)  # z = U x + W v + b

    def make_norms(self):
        """Make the memory of batch norm, if it is the first call that needs it."""
        if self.norms is None:
            owners = self.layer.w_norm, self.layer.u_norm
            self.norms = [norm.tape(self.T, self.shape[0], self.gate_count, self.units) for norm in owners]

    def _normalize(self, t, gates, Wh, Ux):
        for norm, product in zip(self.norms, (Wh, Ux)):
            norm.forward(product, t, gates)
        np.add(Wh, self.bias[gates], out=Wh)

    # Backward

    def start_back(self, tape):
        """Make the memory of :meth:`backward`."""
        layer, self.dWh_of_all, me = self.layer, tape.dWh, weakref.proxy(self)
        size, slopes = max(block.stop - block.start for block in self.blocks), layer.slopes_of
        self.dWh, self.dUx = (self._by_gate_of_step(array) for array in (tape.dWh, tape.dUx))
        self.dz = self._array(self.gate_count) if self.norms else None
        self.db = np.zeros((self.gate_count, self.shape[1]), layer.dtype)
        self.d_states = {name: self._array() for name in layer.states}
        own = {"d" + name: array for name, array in self.d_states.items() if name != "h"}
        own |= {name: self._array() for name in ("dh", "dv", "passed")}
        self.slopes, self.slope_blocks = self._array(size, len(slopes)), []
        for block in self.blocks:
            here = self.slopes[:block.stop - block.start]
            self.slope_blocks.append(self._named(block, **layer._views(here, slopes, "slope_")))
            for t, slope in enumerate(here, block.start):
                dz = self.dWh[t] if self.dz is None else self.dz
                vars(self.steps[t]).update(layer._views(slope, slopes, "slope_"), **layer._views(dz, layer.gates, "dz_"), **own,
                                           late_product_back=partial(Part._late_product_back, me, t))

    def _by_gate_of_step(self, array):
        """The columns of these units: ``array`` (T, B, GH) as (T, G, B, H'), the same memory."""
        T, B, _ = array.shape
        return array.reshape(T, B, self.gate_count, -1)[..., self.units].swapaxes(1, 2)

    def backward(self, W, dy, meet):
        """All steps back. Leaves the gradients of the states before the first in ``d_states``."""
        layer, backward_step, dWh = self.layer, self.layer.backward_step, self.dWh_of_all
        early = self.early.stop * layer.outputs
        self.meet, dy, self.W_late, W = meet, dy[..., self.units], W[early:, self.units], W[:early, self.units]
        dh_ = self.d_states["h"]
        for array in self.d_states.values():
            array.fill(0)                           # nothing comes from after the end
        self.db.fill(0)
        for block, slope_block in zip(reversed(self.blocks), reversed(self.slope_blocks)):
            layer.slopes(slope_block)
            for t in reversed(range(block.start, block.stop)):
                s = self.steps[t]
                np.add(dy[t], dh_, out=s.dh)        # dh = dy + Wᵀ dz₊₁
                backward_step(s)
                if self.dz is not None:
                    self._normalize_back(t, self.early)
                meet()                              # Wᵀ dz needs the dz of all units
                np.matmul(dWh[t, :, :early], W, out=dh_)
                if layer.passes_by:
                    np.add(dh_, s.passed, out=dh_)

    def _late_product_back(self, t):
        if self.dz is not None:
            self._normalize_back(t, self.late)
        self.meet()                                 # it needs the dz of all units
        np.matmul(self.dWh_of_all[t, :, -len(self.W_late):], self.W_late, out=self.steps[t].dv)  # dv = Wᵀ dz

    def _normalize_back(self, t, gates):
        dz = self.dz[gates]
        self.db[gates] += dz.sum(axis=1)
        for norm, out in zip(self.norms, (self.dWh, self.dUx)):
            norm.backward(dz, t, gates, out=out[t, gates])
