"""The belief world model: every agent's own memory, and a joint imagination in which all of them move together.

``T`` steps of ``B`` sequences of ``G`` agents, time first; ``M`` joint states; ``D`` and ``S * K`` the widths of an
agent's deterministic and stochastic latent, ``F`` that of its feature ``[deter, stoch, id]``, ``A`` that of its action.

What is whose: ``encoder``, ``rssm.gru``, ``rssm`` posteriors, ``heard``, ``speech``, ``zero`` and ``first`` read one
agent's own inputs and latent. ``nature`` and ``referee`` read everybody's, and what they compute only conditions the
distribution that an agent's next stochastic latent is imagined from, its reward, and its continuation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from oneiros.algorithms.belief.channel import Channel, Traffic
from oneiros.algorithms.belief.config import Hyperparameters
from oneiros.algorithms.belief.context import Context
from oneiros.algorithms.belief.correspondence import NATS, SAID
from oneiros.algorithms.belief.minds import FirstOrder, ZeroOrder
from oneiros.algorithms.belief.seats import Seats, one_hot_ids
from oneiros.algorithms.contract import Tensors, UnsupportedSpace
from oneiros.algorithms.dreamerv3.encoder_decoder import Decoder, Encoder
from oneiros.algorithms.dreamerv3.rssm import RSSM
from oneiros.algorithms.nn.distributions import categorical_kl, legal_classes, twohot_bins, twohot_loss, twohot_mean
from oneiros.algorithms.nn.layers import MLP, Linear
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Memory:
    """What all agents remember: ``deter`` ``(N, G, D)``, ``stoch`` ``(N, G, S * K)``, and the messages under way."""

    deter: Tensor
    stoch: Tensor
    traffic: Traffic


class BeliefModel(nn.Module):
    """Filters, imagines and predicts for all agents at once."""

    bins: Tensor
    ids: Tensor

    def __init__(self, config: Hyperparameters, seats: Seats, channel: Channel) -> None:
        super().__init__()
        c, units = config, config.width("units")
        self.config, self.seats, self.channel = config, seats, channel
        self.agents = G = len(seats.names)
        self.local = c.variant == "independent" or G == 1
        self.seen = seats.vectors.width * (G if c.variant == "centralised" else 1)
        entries: dict[str, spaces.Space[Any]] = {"own": spaces.Box(-1, 1, (self.seen + G + 2,))}
        if seats.image is not None:
            entries["image"] = seats.image
        self.encoder = Encoder(entries, c.width("depth"), units, c.encoder_layers)
        action = seats.actions.width * (G if c.variant == "centralised" else 1)
        self.rssm = RSSM(
            c.width("deter"), c.width("hidden"), c.groups, c.width("classes"), self.encoder.tokens, action + G,
            unimix=c.unimix,
        )  # fmt: skip
        with torch.no_grad():
            self.rssm.post_logits.weight.mul_(c.posterior_scale)
        deter, stoch = self.rssm.deter, self.rssm.stoch
        self.features = F_ = deter + stoch + G
        extra = 0 if self.local else c.context
        # The prior is told what the others do; the posterior, which is all that an agent acts by, is not.
        self.rssm.prior_net = MLP(deter + G + extra, 2, c.width("hidden"), stoch)
        self.nature = None if self.local else Context(F_ + seats.actions.width, c.context)
        self.referee = None if self.local else Context(F_, c.context)
        self.reward = MLP(F_ + extra, c.reward_layers, units, c.bins, scale=0.0)
        self.cont = MLP(F_ + extra, c.continue_layers, units, 1)
        self.decoder = MLP(F_, c.decoder_layers, units, seats.vectors.width) if seats.vectors.width else None
        self.painter: Decoder | None = None
        if seats.image is not None:
            self.painter = Decoder({"image": seats.image}, deter, stoch + G, c.width("depth"), units)
        self.legal = MLP(F_, 1, units, 1 + seats.actions.discrete) if seats.turns or seats.masks else None
        targets = seats.targets.width if seats.targets is not None else 0
        self.zero = ZeroOrder(F_, c.belief_layers, units, targets) if targets else None
        self.first: FirstOrder | None = None
        if c.models_partners and G > 1:
            self.first = FirstOrder(F_, c.belief_layers, units, G, seats.actions.width, stoch, targets)
        self.heard = Linear(G * channel.width, c.width("hidden"), bias=False) if channel.width else None
        self.speech = MLP(F_, 1, units, channel.width) if channel.width else None
        if self.speech is not None and c.channel.gate == "believed_wrong" and not seats.shares_targets:
            raise UnsupportedSpace(
                "The gate believed_wrong opens where beliefs about the same target differ, and no two agents here have "
                "a target in common: channel.gate must be always."
            )
        self.register_buffer("bins", twohot_bins(c.bins, torch.device("cpu")), persistent=False)
        self.register_buffer("ids", one_hot_ids(G, torch.device("cpu")), persistent=False)

    @property
    def acting_parts(self) -> list[nn.Module]:
        """The modules that acting, and saying what one believes, need."""
        rssm = self.rssm
        parts = [self.encoder, rssm.gru, rssm.post_deter, rssm.post_tokens, rssm.post_norm, rssm.post_logits]
        return parts + [m for m in (self.heard, self.speech, self.zero, self.first) if m is not None]

    @property
    def training_parts(self) -> list[nn.Module]:
        """The modules that only training needs."""
        parts = [self.rssm.prior_net, self.nature, self.referee, self.reward, self.cont, self.decoder, self.painter]
        return [m for m in (*parts, self.legal) if m is not None]

    def forget_training_parts(self) -> None:
        """Keep only what acting needs."""
        parts = self.training_parts
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if any(child is part for part in parts):
                    setattr(module, name, None)

    # ---- filtering: each agent by itself -----------------------------------------------------------------------------

    def initial(self, batch: int) -> Memory:
        """Nothing remembered, nothing under way."""
        latents = self.rssm.initial(batch * self.agents, torch.float32, self.ids.device)
        shape = (batch, self.agents, -1)
        return Memory(latents.deter.view(shape), latents.stoch.view(shape), self.channel.quiet(batch))

    def encode(self, seen: Tensor, image: Tensor | None, alive: Tensor, acting: Tensor) -> Tensor:
        """Tokens ``(N, G, E)``, projected for the posterior, of what each agent sees ``(N, G, W)``."""
        N, G = seen.shape[:2]
        if self.config.variant == "centralised":
            seen = seen.flatten(1)[:, None].expand(-1, G, -1)
        own = torch.cat([seen, self.ids.expand(N, -1, -1), alive[..., None], acting[..., None]], -1)
        obs = {"own": own.flatten(0, 1)}
        if image is not None:
            obs["image"] = image.flatten(0, 1)
        out: Tensor = self.rssm.post_tokens(self.encoder(obs, torch.float32)).view(N, G, -1)
        return out

    def embed_action(self, action: Tensor) -> Tensor:
        """Each agent's own last action ``(N, G, A)``, projected for its memory: ``(N, G, hidden)``."""
        N, G = action.shape[:2]
        if self.config.variant == "centralised":
            action = action.flatten(1)[:, None].expand(-1, G, -1)
        inputs = torch.cat([action, self.ids.expand(N, -1, -1)], -1)
        return self.rssm.gru.embed_action(inputs.flatten(0, 1)).view(N, G, -1)

    def observe_step(
        self, memory: Memory, action: Tensor, tokens: Tensor, begins: Tensor, first: Tensor, uniform: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Traffic]:
        """Update every memory: deter and stoch ``(N, G, ...)``, posterior logits, and the traffic not yet read.

        ``action`` and ``tokens`` are projected; ``begins`` ``(N, G)`` is true where an agent joins, ``first`` ``(N,)``
        where an episode begins; ``uniform`` is ``(N, G, groups)``.
        """
        N, G = begins.shape
        traffic = memory.traffic
        if self.heard is not None:
            traffic = self.channel.reset(traffic, first)
            tokens = tokens + self.heard(self.channel.deliver(traffic))
        deter, stoch, logits = self.rssm.observe_step(
            memory.deter.reshape(N * G, -1),
            memory.stoch.reshape(N * G, -1),
            action.reshape(N * G, -1),
            tokens.reshape(N * G, -1),
            begins.reshape(N * G, 1),
            uniform.reshape(N * G, -1),
        )
        return deter.view(N, G, -1), stoch.view(N, G, -1), logits.view(N, G, -1), traffic

    def speak(
        self,
        feat: Tensor,
        logits: Tensor,
        traffic: Traffic,
        alive: Tensor,
        uniform: Tensor | None,
        lost: Tensor | None,
        turned: Tensor | None = None,
    ) -> tuple[Traffic, Tensor]:
        """Send what each agent has to say, given its feature ``(N, G, F)``; returns who spoke ``(N, G)``.

        ``logits`` ``(N, G, S * K)`` are those of the posterior, by which a gated agent judges who is wrong.
        ``uniform``, ``lost`` and ``turned`` are the noise of ``Channel.compose`` and ``Channel.send``.
        """
        if self.speech is None:
            return traffic, torch.zeros_like(alive)
        message = self.channel.compose(self.speech(feat), uniform)
        speaks = alive
        if self.config.channel.gate == "believed_wrong":
            speaks = alive * (self.disagreement(feat.detach(), logits.detach()) > self.config.channel.gate_nats)
        return self.channel.send(traffic, message, speaks, lost, turned)

    @torch.no_grad()
    def words(self, feat: Tensor, logits: Tensor, uniform: Tensor | None) -> Tensors:
        """What ``speak`` decides by, given the same: the tokens of all messages, sent or not, and what opens a gate."""
        if self.speech is None:
            return {}
        words = {SAID: self.channel.pack(self.channel.compose(self.speech(feat), uniform))}
        if self.config.channel.gate == "believed_wrong":
            words[NATS] = self.disagreement(feat, logits)
        return words

    @torch.no_grad()
    def disagreement(self, feat: Tensor, logits: Tensor) -> Tensor:
        """How far, in nats, an agent believes the most mistaken listener to be from its own belief: ``(N, G)``."""
        seats = self.seats
        if self.zero is None or self.first is None or seats.targets is None:
            return torch.zeros(feat.shape[:2], device=feat.device)
        own, theirs = self.zero(self.mind(feat, logits))[:, :, None], self.first(feat).target
        total = torch.zeros(theirs.shape[:3], device=feat.device)
        for c in seats.targets.components:
            p, q = torch.log_softmax(own[..., c.columns], -1), torch.log_softmax(theirs[..., c.columns], -1)
            # Only of targets that both have is there anything to disagree about.
            total = total + (p.exp() * (p - q)).sum(-1) * (c.owned[:, None] & c.owned)
        return total.masked_fill(self.channel.hears.t() == 0, 0).amax(-1)

    def feat(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """What an agent's heads read: ``(..., G, F)``."""
        return torch.cat([deter, stoch, self.ids.expand(*deter.shape[:-1], -1)], -1)

    def mind(self, feat: Tensor, logits: Tensor) -> Tensor:
        """What an agent's belief about its targets reads ``(M, G, F)``: its feature, or the same with the posterior's
        probabilities, of ``logits`` ``(M, G, S * K)``, in the place of a sample of them."""
        if self.config.zero_order_reads == "sample":
            return feat
        rssm = self.rssm
        deter = feat[..., : rssm.deter]
        return self.feat(deter, rssm.probs(logits.flatten(0, 1)).reshape(logits.shape))

    def posterior(self, deter: Tensor, tokens: Tensor) -> Tensor:
        """Logits ``(N, G, S * K)`` of what was perceived, given the memory ``(N, G, D)`` and all that came in."""
        rssm, shape = self.rssm, (*deter.shape[:2], -1)
        hidden = rssm.post_norm(rssm.post_deter(deter.flatten(0, 1)) + tokens.flatten(0, 1))
        out: Tensor = rssm.post_logits(hidden).view(shape)
        return out

    # ---- nature and referee: everybody together ----------------------------------------------------------------------

    def prior(self, deter: Tensor, stoch: Tensor, action: Tensor, alive: Tensor) -> Tensor:
        """Logits ``(M, G, S * K)`` of what each agent is about to perceive.

        ``deter`` is new; ``stoch`` and ``action`` ``(M, G, ...)`` are those of the step before.
        """
        inputs = [deter, self.ids.expand(*deter.shape[:-1], -1)]
        if self.nature is not None:
            inputs.append(self.nature(torch.cat([self.feat(deter, stoch), action], -1), alive))
        out: Tensor = self.rssm.prior_net(torch.cat(inputs, -1))
        return out

    def imagine_step(
        self, deter: Tensor, stoch: Tensor, action: Tensor, alive: Tensor, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Move all agents one step: each remembers its own, nature decides what each perceives."""
        M, G = alive.shape
        embedded = self.embed_action(action).flatten(0, 1)
        moved = self.rssm.gru(deter.flatten(0, 1), stoch.flatten(0, 1), embedded).view(M, G, -1)
        logits = self.prior(moved, stoch, action, alive)
        sample = self.rssm.sample(logits.flatten(0, 1), uniform.flatten(0, 1)).view(M, G, -1)
        return moved, sample

    def judged(self, feat: Tensor, alive: Tensor) -> Tensor:
        """What reward and continuation read: ``(M, G, F + context)``."""
        return feat if self.referee is None else torch.cat([feat, self.referee(feat, alive)], -1)

    def predict_reward(self, judged: Tensor) -> Tensor:
        """Expected reward ``(M, G)`` of each agent."""
        return twohot_mean(self.reward(judged), self.bins)

    def predict_continue(self, judged: Tensor) -> Tensor:
        """Probability ``(M, G)`` that each agent goes on, discount included."""
        return torch.sigmoid(self.cont(judged)[..., 0].float())

    def predict_legal(self, feat: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Whose turn it is ``(M, G)`` and which actions are legal ``(M, G, D)``; None where all always are."""
        if self.legal is None:
            return None, None
        logits = self.legal(feat).float()
        turn = None
        if self.seats.turns:
            turn = F.one_hot(logits[..., 0].argmax(-1), self.agents).float()
        if not self.seats.masks:
            return turn, None
        legal = (logits[..., 1:] > 0).float()
        for c in self.seats.actions.components:
            legal[..., c.columns] = legal_classes(logits[..., 1:][..., c.columns])
        return turn, legal

    # ---- learning ----------------------------------------------------------------------------------------------------

    def losses(self, feat: Tensor, post_logits: Tensor, prior_logits: Tensor, rows: Mapping[str, Tensor]) -> Tensors:
        """Losses ``(N, G)`` of each agent; ``rows`` are prepared ones (``Belief.prepare``), ``(N, G, ...)``."""
        N, G = feat.shape[:2]
        c, rssm = self.config, self.rssm
        post, prior = rssm.probs(post_logits.flatten(0, 1)), rssm.probs(prior_logits.flatten(0, 1))
        losses = {
            "dyn": categorical_kl(post.detach(), prior).clamp(min=c.free_nats).view(N, G),
            "rep": categorical_kl(post, prior.detach()).clamp(min=c.free_nats).view(N, G),
        }
        if self.decoder is not None:
            losses["rec/own"] = self.seats.vectors.losses(self.decoder(feat).float(), rows["seen"])
        if self.painter is not None:
            image = self.painter.losses(feat.flatten(0, 1), {"image": rows["image"].flatten(0, 1)})["image"]
            losses["rec/image"] = image.view(N, G) * self.seats.sighted
        if self.legal is not None:
            logits = self.legal(feat).float()
            known = logits.new_zeros(N, G)
            if self.seats.turns:
                known = known + F.binary_cross_entropy_with_logits(logits[..., 0], rows["acting"], reduction="none")
            if self.seats.masks:
                nats = F.binary_cross_entropy_with_logits(logits[..., 1:], rows["legal"], reduction="none")
                owned = self.seats.actions.owned[:, : self.seats.actions.discrete]
                known = known + (nats * owned).sum(-1) * rows["acting"]
            losses["legal"] = known
        judged = self.judged(feat, rows["alive"])
        bins = self.bins
        losses["rew"] = twohot_loss(self.reward(judged).flatten(0, 1), rows["reward"].flatten(), bins).view(N, G)
        # The target carries the discount, so that the predicted continuation is the discount of imagination.
        target = (1 - rows["terminal"]) * (1 - 1 / c.horizon)
        losses["con"] = F.binary_cross_entropy_with_logits(self.cont(judged)[..., 0].float(), target, reduction="none")
        return losses

    def belief_losses(self, feat: Tensor, post_logits: Tensor, rows: Mapping[str, Tensor]) -> Tensors:
        """Losses ``(N, G)`` of the beliefs of each agent; ``rows["intended"]`` is what each is about to do."""
        N, G = feat.shape[:2]
        c, seats = self.config, self.seats
        losses: Tensors = {}
        alive = rows["alive"]
        zero: Tensor | None = None
        if self.zero is not None and seats.targets is not None:
            mind = self.mind(feat, post_logits)
            zero = self.zero(mind if c.zero_order_gradient else mind.detach())
            losses["zero"] = seats.targets.discrete_losses(zero, rows["truth"])
        if self.first is None:
            return losses
        about = self.first(feat if c.first_order_gradient else feat.detach())
        eye = torch.eye(G, device=feat.device)
        pairs = (1 - eye) * alive[:, None, :]
        action = rows["intended"][:, None].expand(-1, G, -1, -1)
        seen = pairs * rows["acts"][:, None, :]
        losses["intent"] = (seats.actions.losses(about.action, action) * seen).sum(-1) / max(1, G - 1)
        post = self.rssm.probs(post_logits.detach().flatten(0, 1))
        post = post.view(N, 1, G, *post.shape[1:]).expand(-1, G, -1, -1, -1)
        guess = self.rssm.probs(about.latent.flatten(0, 2))
        kl = categorical_kl(post.flatten(0, 2), guess).view(N, G, G)
        losses["partner"] = (kl * pairs).sum(-1) / max(1, G - 1)
        if zero is not None and seats.targets is not None:
            theirs = seats.targets.probs(zero.detach())[:, None].expand(-1, G, -1, -1)
            wrong = seats.targets.discrete_losses(about.target, theirs)
            losses["partner_belief"] = (wrong * pairs).sum(-1) / max(1, G - 1)
        return losses
