"""The channel that messages go through: tokens, a delay, losses, a budget of bits, and who hears whom.

``N`` environments of ``G`` agents; a message is ``L`` tokens out of a vocabulary of ``K``, as one-hots ``(L * K,)``.
Silence is all zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from oneiros.algorithms.belief.config import ChannelSettings
from oneiros.algorithms.contract import UnsupportedSpace
from oneiros.algorithms.nn.distributions import straight_through
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Traffic:
    """Messages under way ``(N, delay, G, L * K)``, the next to arrive first, and ``bits`` ``(N, G)`` sent so far."""

    under_way: Tensor
    bits: Tensor


class Channel:
    """Carries messages; it holds no state of its own, so that acting and training use it alike."""

    def __init__(self, settings: ChannelSettings, names: tuple[str, ...], device: torch.device) -> None:
        self.settings, self.agents, self.device = settings, len(names), device
        self.width = settings.tokens * settings.vocabulary
        hears = torch.ones(self.agents, self.agents, device=device) - torch.eye(self.agents, device=device)
        if settings.listeners is not None:
            self._check(settings.listeners, names)
            for j, sender in enumerate(names):
                allowed = settings.listeners.get(sender, [])
                hears[:, j] = torch.tensor([float(name in allowed and name != sender) for name in names])
        self.hears = hears
        """``(G listeners, G senders)``."""

    @staticmethod
    def _check(listeners: dict[str, list[str]], names: tuple[str, ...]) -> None:
        for name in [*listeners, *(n for heard in listeners.values() for n in heard)]:
            if name not in names:
                raise UnsupportedSpace(f"channel.listeners names the agent {name!r}; there are {', '.join(names)}.")

    def quiet(self, batch: int) -> Traffic:
        """Nothing under way, nothing sent."""
        shape = (batch, self.settings.delay, self.agents, self.width)
        return Traffic(torch.zeros(shape, device=self.device), torch.zeros(batch, self.agents, device=self.device))

    def reset(self, traffic: Traffic, first: Tensor) -> Traffic:
        """Forget what was under way and sent where an episode begins, ``first`` ``(N,)``."""
        return Traffic(
            traffic.under_way.masked_fill(first[:, None, None, None], 0), traffic.bits.masked_fill(first[:, None], 0)
        )

    def deliver(self, traffic: Traffic) -> Tensor:
        """What each agent reads now: ``(N, G listeners, G senders * L * K)``."""
        arriving = traffic.under_way[:, 0]
        heard = arriving[:, None] * self.hears[None, :, :, None]
        return heard.flatten(2)

    def compose(self, logits: Tensor, uniform: Tensor | None) -> Tensor:
        """Tokens ``(N, G, L * K)`` of ``logits``: sampled with ``uniform`` ``(N, G, L)``, or the likeliest.

        Straight-through: the gradient of what listeners make of a message reaches the logits.
        """
        shape = (*logits.shape[:-1], self.settings.tokens, self.settings.vocabulary)
        probs = torch.softmax(logits.view(shape).float(), -1)
        if uniform is None:
            index = probs.argmax(-1)
        else:
            index = (probs.detach().cumsum(-1) < uniform[..., None]).sum(-1).clamp(max=self.settings.vocabulary - 1)
        sample = F.one_hot(index, self.settings.vocabulary).to(probs.dtype)
        if torch.is_grad_enabled():
            sample = straight_through(sample, probs)
        return sample.flatten(-2)

    def send(
        self, traffic: Traffic, message: Tensor, speaks: Tensor, lost: Tensor | None, turned: Tensor | None = None
    ) -> tuple[Traffic, Tensor]:
        """Put messages ``(N, G, L * K)`` of those that speak ``(N, G)`` on their way; returns who spoke.

        A message that would exceed its sender's budget is not sent. ``lost`` ``(N, G)`` in [0, 1): a message is sent
        and paid for, but lost, where this is under the drop rate. ``turned`` ``(N, G, L)`` in [0, 1): how far through
        the vocabulary each token of a shuffled channel is turned, a one-time pad that nobody has.
        """
        s = self.settings
        if turned is not None:
            message = self.turn(message, turned)
        if s.bit_budget is not None:
            speaks = speaks * (traffic.bits + s.bits <= s.bit_budget)
        carried = speaks if lost is None else speaks * (lost >= s.drop_rate)
        queue = torch.cat([traffic.under_way[:, 1:], (message * carried[..., None])[:, None]], 1)
        return Traffic(queue, traffic.bits + speaks * s.bits), speaks

    def turn(self, message: Tensor, by: Tensor) -> Tensor:
        """Messages ``(N, G, L * K)`` whose tokens are others: each moved ``by`` ``(N, G, L)`` of the vocabulary."""
        s = self.settings
        steps = (by * s.vocabulary).long()[..., None]
        source = (torch.arange(s.vocabulary, device=message.device) - steps) % s.vocabulary
        tokens = message.view(*message.shape[:-1], s.tokens, s.vocabulary)
        return tokens.gather(-1, source).flatten(-2)

    def pack(self, under_way: Tensor) -> Tensor:
        """Tokens ``(N, delay, G, L)`` uint8 of messages under way, as replay stores them; K is silence."""
        s = self.settings
        tokens = under_way.view(*under_way.shape[:-1], s.tokens, s.vocabulary)
        index = torch.where(tokens.sum(-1) > 0.5, tokens.argmax(-1), s.vocabulary)
        return index.to(torch.uint8)

    def unpack(self, index: Tensor) -> Tensor:
        """The inverse of ``pack``."""
        s = self.settings
        return F.one_hot(index.long(), s.vocabulary + 1)[..., : s.vocabulary].float().flatten(-2)
