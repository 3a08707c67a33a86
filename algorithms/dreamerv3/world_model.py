"""DreamerV3's world model: encoder, recurrent model, and the heads that decode its latents."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from oneiros.algorithms.contract import SpaceDict, Tensors
from oneiros.algorithms.dreamerv3.actor import ACTION_MASK, ActionLayout
from oneiros.algorithms.dreamerv3.config import Hyperparameters
from oneiros.algorithms.dreamerv3.encoder_decoder import Decoder, Encoder
from oneiros.algorithms.dreamerv3.gaussian import GaussianRSSM
from oneiros.algorithms.dreamerv3.rssm import RSSM, Latents
from oneiros.algorithms.nn.distributions import (
    legal_classes,
    twohot_bins,
    twohot_loss,
    twohot_mean,
)
from oneiros.algorithms.nn.layers import MLP
from torch import Tensor, nn
from torch.nn import functional as F


class WorldModel(nn.Module):
    """Filters, imagines and predicts (``contract.WorldModel``), and says how wrong it was.

    Flat rows have the leading axis ``N = T * B``, time first. ``F = D + K * S`` is the width of a feature. Without
    ``heads`` it only filters and imagines.
    """

    bins: Tensor

    def __init__(self, config: Hyperparameters, obs_space: SpaceDict, layout: ActionLayout, heads: bool = True):
        super().__init__()
        c, units = config, config.width("units")
        self.config, self.layout = config, layout
        self.encoder = Encoder(obs_space, c.width("depth"), units, c.encoder_layers)
        deter, hidden, tokens = c.width("deter"), c.width("hidden"), self.encoder.tokens
        self.rssm: RSSM
        if c.latent == "gaussian":
            self.rssm = GaussianRSSM(deter, hidden, c.groups, tokens, layout.width)
        else:
            self.rssm = RSSM(deter, hidden, c.groups, c.width("classes"), tokens, layout.width, unimix=c.unimix)
        self.features = self.rssm.deter + self.rssm.stoch
        self.mask: MLP | None = None
        self.register_buffer("bins", twohot_bins(c.bins, torch.device("cpu")), persistent=False)
        if not heads:
            return
        decoded = {k: s for k, s in obs_space.items() if k != ACTION_MASK}
        self.decoder = Decoder(decoded, self.rssm.deter, self.rssm.stoch, c.width("depth"), units, c.decoder_layers)
        self.reward = MLP(self.features, c.reward_layers, units, c.bins, scale=0.0)
        self.cont = MLP(self.features, c.continue_layers, units, 1)
        if ACTION_MASK in obs_space:
            self.mask = MLP(self.features, 1, units, int((obs_space[ACTION_MASK].shape or (0,))[0]))

    # ---- learning ----------------------------------------------------------------------------------------------------

    def losses(
        self, feat: Tensor, post_logits: Tensor, obs: Mapping[str, Tensor], reward: Tensor, terminal: Tensor
    ) -> tuple[Tensors, Tensors]:
        """Losses ``(N,)`` of features ``(N, F)`` and posterior logits ``(N, K * S)``, and scalar metrics.

        DreamerV3 eqs. 4 and 5. ``reward`` and ``terminal`` are float ``(N,)``.
        """
        rssm = self.rssm
        post = rssm.distribution(post_logits)
        prior = rssm.distribution(rssm.prior(feat[:, : rssm.deter]))
        losses = {
            "dyn": rssm.kl(post.detach(), prior).clamp(min=self.config.free_nats),
            "rep": rssm.kl(post, prior.detach()).clamp(min=self.config.free_nats),
        }
        losses.update({f"rec/{k}": v for k, v in self.decoder.losses(feat, obs).items()})
        if self.mask is not None:
            legal = obs[ACTION_MASK].float()
            nats = F.binary_cross_entropy_with_logits(self.mask(feat).float(), legal, reduction="none")
            losses[f"rec/{ACTION_MASK}"] = nats.sum(-1)
        reward_feat = feat if self.config.reward_gradient else feat.detach()
        losses["rew"] = twohot_loss(self.reward(reward_feat), reward, self.bins)
        # The target carries the discount, so that the predicted continuation is the discount of imagination.
        target = (1 - terminal) * (1 - 1 / self.config.horizon)
        losses["con"] = F.binary_cross_entropy_with_logits(self.cont(feat)[:, 0].float(), target, reduction="none")
        with torch.no_grad():
            metrics = {
                "post_entropy": rssm.entropy(post).mean(),
                "prior_entropy": rssm.entropy(prior).mean(),
            }
        return losses, metrics

    def predict_reward(self, feat: Tensor) -> Tensor:
        """Expected reward ``(N,)``."""
        return twohot_mean(self.reward(feat), self.bins)

    def predict_continue(self, feat: Tensor) -> Tensor:
        """Probability ``(N,)`` of going on, discount included."""
        return torch.sigmoid(self.cont(feat)[:, 0].float())

    def predict_mask(self, feat: Tensor) -> Tensor | None:
        """Which actions are legal, ``(N, n)`` of 0 and 1, or None where the environment has no mask."""
        return None if self.mask is None else legal_classes(self.mask(feat).float())

    # ---- contract.WorldModel -----------------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> Tensors:
        """Zeros: ``deter`` ``(B, D)`` and ``stoch`` ``(B, K * S)``."""
        latents = self.rssm.initial(batch, torch.float32, self.bins.device)
        return {"deter": latents.deter, "stoch": latents.stoch}

    @torch.no_grad()
    def observe(
        self,
        obs: Mapping[str, Tensor],
        action: Mapping[str, Tensor],
        is_first: Tensor,
        state: Tensors,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensors, Tensors]:
        """Filter ``(B, T, ...)`` observations given the actions that preceded them; see ``contract.WorldModel``."""
        B, T = is_first.shape
        rows = {k: v.transpose(0, 1).flatten(0, 1) for k, v in obs.items()}
        acts = {k: v.transpose(0, 1).flatten(0, 1) for k, v in action.items()}
        tokens = self.encoder(rows, torch.float32).view(T, B, -1)
        flat = self.layout.flatten(acts).view(T, B, -1)
        uniform = torch.rand(T, B, self.rssm.groups, generator=generator, device=tokens.device)
        start = Latents(state["deter"], state["stoch"])
        latents, _ = self.rssm.observe(tokens, flat, is_first.transpose(0, 1), start, uniform)
        return self._state(latents)

    @torch.no_grad()
    def imagine(
        self, state: Tensors, action: Mapping[str, Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensors, Tensors]:
        """Roll ``(B, ...)`` latents forward under actions ``(B, H, ...)``; see ``contract.WorldModel``."""
        B, H = next(iter(action.values())).shape[:2]
        flat = self.layout.flatten({k: v.transpose(0, 1).flatten(0, 1) for k, v in action.items()}).view(H, B, -1)
        uniform = torch.rand(H, B, self.rssm.groups, generator=generator, device=flat.device)
        deter, stoch = state["deter"], state["stoch"]
        deters, stochs = [], []
        for act, noise in zip(flat.unbind(0), uniform.unbind(0), strict=True):
            deter, stoch = self.rssm.imagine_step(deter, stoch, act, noise)
            deters.append(deter)
            stochs.append(stoch)
        return self._state(Latents(torch.stack(deters), torch.stack(stochs)))

    @torch.no_grad()
    def predict(self, latents: Tensors) -> Tensors:
        """Decode latents ``(..., D)`` and ``(..., K * S)`` to observations, ``reward`` and ``continue``."""
        feat = torch.cat([latents["deter"], latents["stoch"]], -1)
        lead, flat = feat.shape[:-1], feat.reshape(-1, feat.shape[-1])
        out = self.decoder.predict(flat)
        out["reward"] = self.predict_reward(flat)
        out["continue"] = self.predict_continue(flat)
        if (mask := self.predict_mask(flat)) is not None:
            out[ACTION_MASK] = mask
        return {k: v.reshape(*lead, *v.shape[1:]) for k, v in out.items()}

    def _state(self, latents: Latents) -> tuple[Tensors, Tensors]:
        sequence = {"deter": latents.deter.transpose(0, 1), "stoch": latents.stoch.transpose(0, 1)}
        return {"deter": latents.deter[-1], "stoch": latents.stoch[-1]}, sequence
