"""One step of DreamerV3's policy as a module without random generators: what can be exported as a graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from oneiros.algorithms.contract import Field, Tensors
from oneiros.algorithms.dreamerv3.actor import ACTION_MASK, ActionLayout, Actor, Noise
from oneiros.algorithms.dreamerv3.encoder_decoder import Encoder
from oneiros.algorithms.dreamerv3.rssm import RSSM
from torch import Tensor, nn

LATENT, CHOICE, VALUE = "uniform/latent", "uniform/choice", "normal/value"


class PolicyStep(nn.Module):
    """Computes what ``DreamerV3.act`` does, with noise as an input; see ``contract.ExplicitPolicy``."""

    def __init__(self, encoder: Encoder, rssm: RSSM, actor: Actor, layout: ActionLayout):
        super().__init__()
        self.encoder, self.rssm, self.actor, self.layout = encoder, rssm, actor, layout

    def fields(self) -> dict[str, Field]:
        """The noise of one step, each without the leading ``N``; a kind that nothing is drawn from is left out."""
        widths = {
            LATENT: self.rssm.groups,
            CHOICE: len(self.layout.classes),
            VALUE: self.layout.continuous_width,
        }
        return {key: Field((width,), np.dtype(np.float32)) for key, width in widths.items() if width}

    def forward(
        self, obs: Mapping[str, Tensor], is_first: Tensor, state: Tensors, noise: Tensors, explore: Tensor
    ) -> tuple[Tensors, Tensors]:
        """Return actions and the next state; ``explore`` ``(N,)`` bool is true where the action is sampled."""
        first = is_first[:, None]
        tokens = self.rssm.post_tokens(self.encoder(obs, torch.float32))
        embedded = self.rssm.gru.embed_action(state["action"].masked_fill(first, 0))
        deter, stoch, _ = self.rssm.observe_step(state["deter"], state["stoch"], embedded, tokens, first, noise[LATENT])
        params = self.actor(torch.cat([deter, stoch], -1))
        mask = obs[ACTION_MASK].float() if ACTION_MASK in obs else None
        none = deter[:, :0]
        drawn = Noise(noise.get(CHOICE, none), noise.get(VALUE, none))
        flat = torch.where(explore[:, None], self.actor.sample(params, drawn, mask), self.actor.mode(params, mask))
        action = self.layout.unflatten(flat)
        return action, {"deter": deter, "stoch": stoch, "action": self.layout.flatten(action)}
