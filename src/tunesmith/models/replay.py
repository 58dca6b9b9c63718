"""The frozen prefix: what leaves block `cut` - 1 is captured once, and handed back in place of the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.models.layout import Layout, evaluating, first_tensor
from tunesmith.models.network import Network
from tunesmith.models.unpadded import Places, other_hooks
from tunesmith.seeds import torch_seed

TOLERANCE = 1e-6


class Replay:
    """Runs a model in two halves without touching its own forward, masks or positions.

    `cut` = k: blocks [0, k) and everything before them are frozen. While a call lasts, the forward of each frozen block
    is swapped for a stand-in: the first ones pass on what they are given, block k - 1 gives the captured hidden states
    in that block's own form (tensor or tuple). What lies around the blocks runs as ever, on its own inputs.

    `call` runs the model on a dict of inputs; by default `module(inputs)` for a Network, whose layout is its own, and
    `module(**inputs)` for any other module, where `layout` must be given. It may also be a part of the forward,
    such as `network.features`. Raises ValueError for a cut outside 1 ... number of blocks.
    """

    def __init__(
        self,
        module: nn.Module,
        cut: int,
        layout: Layout | None = None,
        call: Callable[[dict[str, Tensor]], Any] | None = None,
    ) -> None:
        if layout is None:
            if not isinstance(module, Network):
                raise ValueError("a module that is no Network needs its layout")
            layout = module.layout
        if not 1 <= cut <= len(layout.blocks):
            raise ValueError(f"cut is {cut}, and the model has {len(layout.blocks)} blocks: expected 1 up to that")
        if call is None:
            call = module if isinstance(module, Network) else lambda inputs: module(**inputs)
        self.cut = cut
        self._module = module
        self._call = call
        self._frozen = [module.get_submodule(name) for name in layout.blocks[:cut]]
        self._known = self._attached()
        self._before = [module.get_submodule(name) for name in layout.embeddings]
        self._pack: Callable[[Tensor], Any] | None = None  # hidden states -> what block cut - 1 gives

    @property
    def prefix(self) -> tuple[nn.Module, ...]:
        """The modules that are frozen, to be kept in evaluation mode while the rest trains."""
        return (*self._before, *self._frozen)

    def _attached(self) -> list[object]:
        """What is hooked onto the frozen blocks and their parts."""
        return other_hooks(part for block in self._frozen for part in block.modules())

    @torch.no_grad()
    def capture(self, inputs: dict[str, Tensor]) -> Tensor:
        """The hidden states that leave block cut - 1, [rows, tokens, width] ([rows, width, y, x] for image stages).

        Ends the forward there. In evaluation mode whatever the mode of the modules, and without a graph.
        """
        last = self._frozen[-1]
        live = last.forward

        def stop(*args: Any, **kwargs: Any) -> Any:
            raise _Captured(live(*args, **kwargs))

        with evaluating(self._module), _swapped({last: stop}):
            try:
                self._call(inputs)
            except _Captured as captured:
                output = captured.output
            else:
                raise RuntimeError("the forward ended without reaching the block to capture")
        self._pack = _packing(output)
        return first_tensor(output)

    def forward(self, inputs: dict[str, Tensor], hidden: Tensor) -> Any:
        """What `call(inputs)` gives, with `hidden` in place of the frozen blocks' work. No gradient enters `hidden`.

        Where something was attached to the frozen blocks since, they work themselves: a stand-in would not show it what they
        give.
        """
        rows = len(next(iter(inputs.values())))
        if len(hidden) != rows:
            raise ValueError(f"hidden has {len(hidden)} rows and the inputs have {rows}")
        if self._attached() != self._known:
            return self._call(inputs)
        if self._pack is None:  # hidden states from the disk: look once at what the block gives, on one row
            self.capture({name: value[:1] for name, value in inputs.items()})
        assert self._pack is not None
        stand_ins: dict[nn.Module, Callable[..., Any]] = dict.fromkeys(self._frozen[:-1], _PassOn(self._pack))
        with _swapped({**stand_ins, self._frozen[-1]: _HandBack(self._pack, hidden.detach())}):
            return self._call(inputs)


def supported_cut(
    module: nn.Module,
    cut: int,
    inputs: dict[str, Tensor],
    layout: Layout | None = None,
    call: Callable[[dict[str, Tensor]], Any] | None = None,
) -> tuple[int, str]:
    """(`cut`, "") where capture and replay of these inputs give what the live forward gives; else (0, the reason).

    Compared in evaluation mode, and once more with the part after the cut in training mode, where randomness that the
    model draws ahead of its blocks would show. Equal means to within 1e-6 of the largest value, in float32.
    """
    if cut == 0:
        return 0, "nothing before the first trained part is frozen"
    try:
        replay = Replay(module, cut, layout, call)
        modes = {part: part.training for part in module.modules()}
        try:
            for training in (False, True):
                module.train(training)
                for part in (*replay.prefix, *_counting(module)):
                    part.eval()
                reason = _difference(replay, inputs)
                if reason is not None:
                    return 0, reason
        finally:
            module.train(modes[module])  # a network changes more than modes with it
            for part, mode in modes.items():
                part.training = mode
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        return 0, f"the frozen blocks cannot be replayed: {type(error).__name__}: {error}"
    return cut, ""


def _counting(module: nn.Module) -> list[nn.Module]:
    """Modules that a forward in training mode would change: batch norms keep running means."""
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def _difference(replay: Replay, inputs: dict[str, Tensor]) -> str | None:
    hidden = replay.capture(inputs)
    outputs = []
    for run in (lambda: replay._call(inputs), lambda: replay.forward(inputs, hidden)):
        with torch_seed("replay"):
            outputs.append(_result(run()).float())
    live, replayed = outputs
    most = (live - replayed).abs().max().item() if live.numel() else 0.0
    allowed = TOLERANCE * max(1.0, live.abs().max().item())
    if live.shape == replayed.shape and most <= allowed:
        return None
    return f"replayed blocks gave another result than the live ones (by up to {most:.1e})"


def _result(output: Any) -> Tensor:
    for name in ("logits", "last_hidden_state"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    return first_tensor(output)


class _Captured(Exception):
    """Carries a block's output out of the forward."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class _PassOn:
    """Stands in for a block whose result nobody reads: gives back the hidden states it got, in the block's form."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        self._pack = pack

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None))
        if not isinstance(given, Tensor):
            raise TypeError(f"expected hidden states as a block's first argument, not {type(given).__name__}")
        return self._pack(given)


class _HandBack:
    """Stands in for the last frozen block: gives what was captured, without filler where the blocks get none."""

    def __init__(self, pack: Callable[[Tensor], Any], hidden: Tensor) -> None:
        self._pack, self._hidden = pack, hidden

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        places = next((value for value in (*args, *kwargs.values()) if isinstance(value, Places)), None)
        return self._pack(self._hidden if places is None else places.joined(self._hidden))


def _packing(output: Any) -> Callable[[Tensor], Any]:
    """How hidden states are packed into what the block gives. Raises TypeError where it gives more than them."""
    if isinstance(output, Tensor):
        return lambda hidden: hidden
    first_tensor(output)
    if any(item is not None for item in output[1:]):
        raise TypeError("a block gives more than its hidden states, which later parts may read")
    rest = tuple(output[1:])
    return lambda hidden: (hidden, *rest)


@contextmanager
def _swapped(stand_ins: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Inside, each module's forward is its stand-in; outside, also after an exception, it is what it was."""
    own = {module: vars(module).get("forward") for module in stand_ins}
    for module, stand_in in stand_ins.items():
        vars(module)["forward"] = stand_in
    try:
        yield
    finally:
        for module, forward in own.items():
            if forward is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = forward
