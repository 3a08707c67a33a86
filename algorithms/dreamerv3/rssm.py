"""The recurrent state-space model of DreamerV3 (Nature 2025): a block GRU with categorical latents.

Time comes first inside the algorithm: ``T`` steps of ``N`` sequences. ``D`` is the deterministic width, ``S`` the
number of latent groups (32), ``K`` the classes of each, ``A`` the flat action width, ``E`` the token width. Stochastic
states are flat ``(N, K * S)`` one-hots in class-major order (see ``nn.distributions``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from oneiros.algorithms.nn.distributions import (
    categorical_entropy,
    categorical_kl,
    latent_probs,
    one_hot_sample,
    straight_through,
)
from oneiros.algorithms.nn.gates import gated
from oneiros.algorithms.nn.layers import MLP, Block, BlockLinear, Linear, NormSiLU
from oneiros.algorithms.nn.recurrence import PLAIN, Plain, Tapping, Taps, scale_taps
from torch import Tensor, nn

BLOCKS = 8


@dataclass(frozen=True)
class Latents:
    """``deter`` ``(..., D)`` and ``stoch`` ``(..., K * S)``."""

    deter: Tensor
    stoch: Tensor

    @property
    def feat(self) -> Tensor:
        """What every head reads: ``(..., D + K * S)``."""
        return torch.cat([self.deter, self.stoch], -1)


class BlockGRU(nn.Module):
    """``deter' = f(deter, stoch, action)``: three projections, one block-diagonal layer, block-diagonal GRU gates."""

    def __init__(self, deter: int, stoch: int, action: int, hidden: int, blocks: int = BLOCKS):
        super().__init__()
        if deter % blocks:
            raise ValueError(f"deter={deter} must be a multiple of the {blocks} blocks.")
        self.blocks = blocks
        self.from_deter = Block(deter, hidden)
        self.from_stoch = Block(stoch, hidden)
        self.from_action = Block(action, hidden)
        # The paper's layer sees, in every block, its slice of deter and a copy of all three projections. The columns
        # for the copies are one dense layer, which is several times faster than repeating its input.
        fan_in = deter + blocks * 3 * hidden
        self.hidden_deter = BlockLinear(deter, deter, blocks, fan_in, bias=False)
        self.hidden_inputs = Linear(3 * hidden, deter, fan_in=fan_in)
        self.hidden_norm = NormSiLU(deter)
        self.gates = BlockLinear(deter, 3 * deter, blocks)

    def embed_action(self, action: Tensor) -> Tensor:
        """Project actions ``(N, A)``, scaled into [-1, 1] without a gradient through the scale, to ``(N, hidden)``."""
        out: Tensor = self.from_action(action / action.detach().abs().clamp(min=1.0))
        return out

    def forward(self, deter: Tensor, stoch: Tensor, action: Tensor, way: Plain = PLAIN) -> Tensor:
        """Return the next deter ``(N, D)``; ``action`` ``(N, hidden)`` is embedded already.

        ``way`` is how to go through the layers.
        """
        n, d = deter.shape
        inputs = torch.cat([way.block(self.from_deter, deter), way.block(self.from_stoch, stoch), action], -1)
        x = way.norm(self.hidden_norm, way.layer(self.hidden_deter, deter) + way.layer(self.hidden_inputs, inputs))
        return gated(way.layer(self.gates, x).view(n, self.blocks, 3, d // self.blocks), deter)


class RSSM(nn.Module):
    """Filters observations into latents and rolls latents forward without them.

    Args:
        deter, hidden, classes, groups: the widths D, hidden, K and S.
        tokens, action: the widths E and A.
        unimix: share of the uniform distribution in every latent distribution.
    """

    stored = torch.uint8
    """The dtype in which replay keeps a stochastic state."""

    def __init__(
        self,
        deter: int,
        hidden: int,
        groups: int,
        classes: int,
        tokens: int,
        action: int,
        prior_layers: int = 2,
        unimix: float = 0.01,
    ):
        super().__init__()
        self.deter, self.groups, self.classes, self.unimix = deter, groups, classes, unimix
        self.stoch = groups * classes
        self.gru = BlockGRU(deter, self.stoch, action, hidden)
        # One layer on [deter, tokens]: the half that reads tokens is computed for all steps at once. (And clipped by
        # itself, as the GRU's two are: see nn.laprop.)
        self.post_deter = Linear(deter, hidden, fan_in=deter + tokens, bias=False)
        self.post_tokens = Linear(tokens, hidden, fan_in=deter + tokens)
        self.post_norm = NormSiLU(hidden)
        self.post_logits = Linear(hidden, self.stoch)
        self.prior_net = MLP(deter, prior_layers, hidden, self.stoch)

    @property
    def recurrent(self) -> list[Linear | BlockLinear]:
        """The layers that work at every step of ``observe``, in the order in which they do."""
        gru = self.gru
        projections = [gru.from_deter.linear, gru.from_stoch.linear]
        return [*projections, gru.hidden_deter, gru.hidden_inputs, gru.gates, self.post_deter, self.post_logits]

    @property
    def norms(self) -> list[NormSiLU]:
        """The norms that work at every step of ``observe``, in the order in which they do."""
        return [self.gru.from_deter.norm, self.gru.from_stoch.norm, self.gru.hidden_norm, self.post_norm]

    def initial(self, batch: int, dtype: torch.dtype, device: torch.device) -> Latents:
        """Zeros, ``(N, D)`` and ``(N, K * S)``."""
        return Latents(
            torch.zeros(batch, self.deter, dtype=dtype, device=device),
            torch.zeros(batch, self.stoch, dtype=dtype, device=device),
        )

    def distribution(self, logits: Tensor) -> Tensor:
        """What ``kl`` and ``entropy`` take: here ``probs``."""
        return self.probs(logits)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """``KL(p || q)``, summed over groups: ``(N,)``."""
        return categorical_kl(p, q)

    def entropy(self, p: Tensor) -> Tensor:
        """Entropy in nats, summed over groups: ``(N,)``."""
        return categorical_entropy(p)

    def probs(self, logits: Tensor) -> Tensor:
        """Probabilities ``(N, K, S)``, float32, of logits ``(N, K * S)``."""
        return latent_probs(logits.view(-1, self.classes, self.groups), self.unimix)

    def sample(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Sample ``(N, K * S)`` from logits with noise ``(N, S)``; straight-through gradients."""
        probs = self.probs(logits)
        sample = one_hot_sample(probs, uniform)
        if torch.is_grad_enabled():
            sample = straight_through(sample, probs)
        return sample.view(-1, self.stoch).to(logits.dtype)

    def prior(self, deter: Tensor) -> Tensor:
        """Logits ``(N, K * S)`` of the next stoch before its observation is seen."""
        logits: Tensor = self.prior_net(deter)
        return logits

    def observe_step(
        self,
        deter: Tensor,
        stoch: Tensor,
        action: Tensor,
        tokens: Tensor,
        first: Tensor,
        uniform: Tensor,
        way: Plain = PLAIN,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of ``observe``: ``action`` and ``tokens`` are projected, ``first`` ``(N, 1)`` is true at resets.

        ``way`` is how to go through the layers.
        """
        # Filled, not multiplied by zero: a NaN from before the reset must not outlive it.
        deter = self.gru(deter.masked_fill(first, 0), stoch.masked_fill(first, 0), action, way)
        logits = way.layer(self.post_logits, way.norm(self.post_norm, way.layer(self.post_deter, deter) + tokens))
        return deter, self.sample(logits, uniform), logits

    def tapped_step(
        self,
        deter: Tensor,
        stoch: Tensor,
        action: Tensor,
        tokens: Tensor,
        first: Tensor,
        uniform: Tensor,
        taps: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """``observe_step`` with one of ``Taps.steps``; what the ``recurrent`` layers read comes last.

        Beyond those of the layers, ``taps`` may hold the scales of the ``norms``.
        """
        layers = len(self.recurrent)
        way = Tapping(taps[:layers], taps[layers:])
        deter, stoch, logits = self.observe_step(deter, stoch, action, tokens, first, uniform, way)
        assert len(way.read) == layers, "a layer of `recurrent` was not used"
        return deter, stoch, logits, way.read

    def observe(
        self, tokens: Tensor, action: Tensor, is_first: Tensor, state: Latents, uniform: Tensor
    ) -> tuple[Latents, Tensor]:
        """Filter a sequence.

        Args:
            tokens: ``(T, N, E)``, the encoded observations.
            action: ``(T, N, A)``, the action that preceded each observation.
            is_first: ``(T, N)`` bool; there the state and the action before it count as zero.
            state: the latents before the first step, whose dtype the recurrence runs in.
            uniform: ``(T, N, S)`` noise in [0, 1).

        Returns:
            Posterior latents ``(T, N, ...)`` and their logits ``(T, N, K * S)``.
        """
        T, N, _ = tokens.shape
        dtype = state.deter.dtype
        first = is_first[..., None]
        action = action.masked_fill(first, 0).to(tokens.dtype)
        embedded = self.gru.embed_action(action.view(T * N, -1)).to(dtype).view(T, N, -1)
        projected = self.post_tokens(tokens.view(T * N, -1)).to(dtype).view(T, N, -1)
        deter, stoch = state.deter, state.stoch
        deters, stochs, logits = [], [], []
        # unbind, not indexing: the backward of one unbind is one stack, of T indexings T additions of (T, N, .) zeros.
        steps = zip(embedded.unbind(0), projected.unbind(0), first.unbind(0), uniform.unbind(0), strict=True)
        taps: Taps | None = None
        scales: list[tuple[Tensor, ...]] = [()] * T
        if torch.is_grad_enabled():
            taps = Taps(self.recurrent, T, N, dtype)
            if tokens.device.type != "cpu":
                # On a GPU it is the launches that count, of which sums at every step take many.
                scales = scale_taps(self.norms, T, N)
            # With gradients like the states that follow, or the first step would be compiled once more, for itself.
            deter, stoch = deter.detach().requires_grad_(), stoch.detach().requires_grad_()
        for t, (act, tok, reset, noise) in enumerate(steps):
            if taps is None:
                deter, stoch, logit = self.observe_step(deter, stoch, act, tok, reset, noise)
            else:
                each = (*taps.steps[t], *scales[t])
                deter, stoch, logit, inputs = self.tapped_step(deter, stoch, act, tok, reset, noise, each)
                taps.record(inputs)
            deters.append(deter)
            stochs.append(stoch)
            logits.append(logit)
        return Latents(torch.stack(deters), torch.stack(stochs)), torch.stack(logits)

    def imagine_step(self, deter: Tensor, stoch: Tensor, action: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the next latents from ``(N, A)`` actions with noise ``(N, S)``."""
        deter = self.gru(deter, stoch, self.gru.embed_action(action.to(deter.dtype)))
        return deter, self.sample(self.prior(deter), uniform)

    def pack(self, stoch: Tensor) -> Tensor:
        """Class indices ``(..., S)`` uint8 of one-hots ``(..., K * S)``, as replay stores them."""
        # A product with the indices, for argmax over a strided axis takes ten times as long.
        index = torch.arange(self.classes, dtype=stoch.dtype, device=stoch.device)
        return (index @ stoch.view(*stoch.shape[:-1], self.classes, self.groups)).to(torch.uint8)

    def unpack(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """One-hots ``(..., K * S)`` of class indices ``(..., S)``."""
        one_hot = torch.arange(self.classes, device=index.device)[:, None] == index[..., None, :].long()
        return one_hot.to(dtype).flatten(-2)
