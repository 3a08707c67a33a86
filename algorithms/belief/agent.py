"""The belief agent: DreamerV3 for several agents that model the world, each other, and what the others believe.

Facts and sources: Neural Recursive Belief States (2102.02274) for recursive beliefs, MATWM (2506.18537) for predicted
intents that feed actor and critic, MARIE (2406.15836) for the context across agents and the centralised critic.

Shapes: ``B`` sequences of ``T`` replayed joint steps, ``N = T * B`` rows with time first, ``G`` agents, ``H`` imagined
steps, ``F`` the width of a feature, ``A`` of an action, ``W`` of what an agent sees. Agents are a batch axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib import resources
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from oneiros.algorithms.belief.actor import Actor, Noise
from oneiros.algorithms.belief.apart import apart, clip_apart
from oneiros.algorithms.belief.channel import Channel, Traffic
from oneiros.algorithms.belief.config import Hyperparameters
from oneiros.algorithms.belief.correspondence import SAID, Correspondent
from oneiros.algorithms.belief.critic import Critic
from oneiros.algorithms.belief.measure import measure, tables
from oneiros.algorithms.belief.model import BeliefModel, Memory
from oneiros.algorithms.belief.seats import ALIVE, Seats
from oneiros.algorithms.contract import SIGNAL, Field, Mode, SpaceDict, Tensors
from oneiros.algorithms.dreamerv3.returns import ReturnScale, lambda_return
from oneiros.algorithms.nn.distributions import twohot_losses, twohot_mean
from oneiros.algorithms.nn.learning_agent import LearningAgent
from oneiros.algorithms.nn.weights import Weights
from torch import Tensor, nn


class Belief(Correspondent, LearningAgent):
    """The agent; see ``contract.Agent`` for what the methods promise.

    Args:
        config: hyperparameters.
        obs_space, action_space: flat spaces of joint rows (``contract``), training-only keys included.
        device: where the model lives.
        seed: of the initialisation and of every sample drawn here.
        role: ``"policy"`` builds only what acting, and saying what one believes, needs.

    Raises:
        UnsupportedSpace: for spaces that are not those of joint rows, or that it cannot serve, and for a channel that
            is not one between these agents.
    """

    model: BeliefModel
    actor: Actor
    critic: Critic
    slow_critic: Critic
    return_scale: ReturnScale

    Config = Hyperparameters
    PRESETS = resources.files(__package__ or "oneiros.algorithms.belief") / "presets.yaml"
    READS_TRAINING_ONLY = True

    def __init__(
        self,
        config: Hyperparameters,
        obs_space: SpaceDict,
        action_space: SpaceDict,
        device: str | torch.device = "cpu",
        seed: int = 0,
        role: Literal["learner", "policy"] = "learner",
    ):
        self.config, self.role, self.device = config, role, torch.device(device)
        self.obs_space, self.action_space = dict(obs_space), dict(action_space)
        self.seats = Seats(obs_space, action_space).to(self.device)
        self.channel = Channel(config.channel, self.seats.names, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if config.weights == "shared":
                self.model, self.actor, critic = self._mind()
            else:
                models, actors, critics = zip(*(self._mind() for _ in self.seats.names), strict=True)
                self.model, self.actor, critic = apart(models), apart(actors), apart(critics)
        if role == "policy":
            self.model.forget_training_parts()
        else:
            self.critic, self.slow_critic = critic.to(self.device), deepcopy(critic).to(self.device)
        self.model.to(self.device)
        self.actor.to(self.device)
        self.act_generator = torch.Generator(self.device).manual_seed(seed + 1)
        rssm, G = self.model.rssm, len(self.seats.names)
        self.latent_fields = {
            "deter": Field((G, rssm.deter), np.dtype(np.float16)),
            "stoch": Field((G, rssm.groups), np.dtype(np.uint8)),
        }
        if self.channel.width:
            channel = config.channel
            self.latent_fields["messages"] = Field((channel.delay, G, channel.tokens), np.dtype(np.uint8))
            self.latent_fields["bits"] = Field((G,), np.dtype(np.float32))
        policy: list[nn.Module] = [*self.model.acting_parts, self.actor]
        self.policy_size = sum(p.numel() for module in policy for p in module.parameters())
        if role == "policy":
            self.weights = Weights(policy, torch.float32, trained=False)
            return
        # Acting's weights come first, so that they are one slice of the buffer.
        self.weights = Weights([*policy, *self.model.training_parts, self.critic], torch.float32)
        if config.weights == "separate":
            clip_apart(self.weights)
        self.slow_weights = Weights([self.slow_critic], torch.float32, trained=False)
        self.return_scale = ReturnScale(config.return_rate).to(self.device)
        self.batch_keys = (
            *(*self.obs_space, *self.action_space, "reward", "is_first", "is_last", "is_terminal"),
            *(*(f"latent/{key}" for key in self.latent_fields), "latent_valid"),
        )
        self.prepare_learning(config, seed)

    def _mind(self) -> tuple[BeliefModel, Actor, Critic]:
        """Everything that learns, with initial weights drawn anew."""
        c, actions = self.config, self.seats.actions
        model = BeliefModel(c, self.seats, self.channel)
        units, intents = c.width("units"), model.agents * actions.width if model.first is not None else 0
        actor = Actor(model.features + intents, actions, c.actor_layers, units, c.actor_unimix)
        width = 0 if model.local else c.context
        return model, actor, Critic(model.features, intents, width, c.critic_layers, units, c.bins)

    # ---- acting ------------------------------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> Tensors:
        """Zeros: what each agent remembers, ``(N, G, ...)``, and the messages under way."""
        memory, G = self.model.initial(batch), len(self.seats.names)
        zeros = torch.zeros(batch, G, device=self.device)
        return {
            "deter": memory.deter,
            "stoch": memory.stoch,
            "under_way": memory.traffic.under_way,
            "bits": memory.traffic.bits,
            "action": torch.zeros(batch, G, self.seats.actions.width, device=self.device),
            "alive": zeros,
        }

    @torch.inference_mode()
    def act(
        self, obs: Mapping[str, Tensor], is_first: Tensor, state: Tensors, mode: Mode = "train"
    ) -> tuple[Tensors, Tensors, Tensors]:
        """See ``contract.Policy``. Each agent's action depends on its own observations, actions and messages alone."""
        model, seats, device, generator = self.model, self.seats, self.device, self.act_generator
        N, G = is_first.shape[0], len(seats.names)
        first = is_first.to(device)
        alive, acting = seats.flag(obs, ALIVE, device), seats.acting(obs, device)
        tokens = model.encode(seats.see(obs, device), seats.images(obs, device), alive, acting)
        begins = first[:, None] | ((alive > 0) & (state["alive"] == 0))
        memory = Memory(state["deter"], state["stoch"], Traffic(state["under_way"], state["bits"]))
        action = model.embed_action(state["action"].masked_fill(begins[..., None], 0))
        uniform = torch.rand(N, G, model.rssm.groups, generator=generator, device=device)
        deter, stoch, logits, traffic = model.observe_step(memory, action, tokens, begins, first, uniform)
        feat = model.feat(deter, stoch)
        params = self.actor(torch.cat([feat, self.intents(feat)], -1))
        legal = seats.legal(obs, device)
        noise = self.actor.noise((N, G), generator)
        flat = self.actor.mode(params, legal) if mode == "eval" else self.actor.sample(params, noise, legal)
        latents = {"deter": deter.to(torch.float16), "stoch": model.rssm.pack(stoch)}
        if self.channel.width:
            said = self._rand(generator, N, G, self.config.channel.tokens) if mode == "train" else None
            lost = self._rand(generator, N, G)
            if SAID in self.latent_fields:
                latents |= model.words(feat, logits, said)
            traffic, _ = model.speak(feat, logits, traffic, alive, said, lost, self._turned(generator, N))
            latents |= {"messages": self.channel.pack(traffic.under_way), "bits": traffic.bits}
        joint = seats.actions.unflatten(flat)
        state = {
            "deter": deter,
            "stoch": stoch,
            "under_way": traffic.under_way,
            "bits": traffic.bits,
            "action": seats.flatten_action(joint, device) * acting[..., None],
            "alive": alive,
        }
        return joint, state, latents

    def intents(self, feat: Tensor) -> Tensor:
        """What each agent expects of all partners, ``(M, G, G * A)``, without gradient."""
        if self.model.first is None:
            return feat[..., :0]
        with torch.no_grad():
            G = feat.shape[1]
            others = 1 - torch.eye(G, device=feat.device)
            return (self.seats.actions.probs(self.model.first.intents(feat)) * others[..., None]).flatten(2)

    @torch.no_grad()
    def intended(self, feat: Tensor, legal: Tensor | None) -> Tensor:
        """What each agent is about to do, ``(M, G, A)``: its policy's probabilities, or means of continuous actions."""
        return self.actor.expected(self.actor(torch.cat([feat, self.intents(feat)], -1)), legal)

    def reads(self, key: str) -> bool:
        """Whether ``examine``, ``tables`` and ``messages`` read this entry of rows.

        They read images only where beliefs read the posterior, which is made anew from what was perceived.
        """
        images = {f"agent/{name}/{image}" for name, image in self.seats.image_key.items()}
        return self.config.zero_order_reads == "posterior" or key not in images

    @torch.no_grad()
    def examine(self, rows: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """What the agents believed in rows ``(N, T, ...)`` that they acted in, against what was so (``measure``)."""
        return measure(self.model, rows, self.intended)

    @torch.no_grad()
    def tables(self, rows: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
        """What plots of these rows' beliefs are drawn from (``measure.tables``)."""
        return tables(self.model, rows)

    # ---- learning ----------------------------------------------------------------------------------------------------

    def prepare(self, batch: Mapping[str, Tensor]) -> Tensors:
        """Split a batch ``(B, context + T, ...)`` of joint rows into what the loss reads, time first.

        Rows are ``(N, G, ...)``: ``seen``, ``image``, ``alive``, ``acting`` (whose turn it was), ``acts`` (whose action
        was executed), ``action``, ``legal``, ``reward``, ``terminal``, ``truth``. ``begins`` is ``(T, B, G)``,
        ``first`` and ``last`` ``(T, B)``, ``prev_action`` ``(T, B, G, A)``; ``deter``, ``stoch``, ``messages`` and
        ``bits`` are the start.
        """
        seats, device, context = self.seats, self.device, self.config.replay_context
        B, L = batch["is_first"].shape
        T, G = L - context, len(seats.names)
        assert T >= 2, f"sequences of {L} rows leave {T} to train on"
        flat = {k: v.transpose(0, 1).flatten(0, 1) for k, v in batch.items() if not k.startswith("latent")}
        alive, acting = seats.flag(flat, ALIVE, device), seats.acting(flat, device)
        first = batch["is_first"].t().to(device)
        last = batch["is_last"].t().to(device)
        acts = acting * (1 - last.reshape(-1, 1).float())
        action = seats.flatten_action(flat, device) * acts[..., None]
        reward = seats.training(flat, "reward", device)
        if self.config.reward == "team":
            reward = flat["reward"].to(device)[:, None].expand(-1, G)
        rows: Tensors = {
            "seen": seats.see(flat, device),
            "alive": alive,
            "acting": acting,
            "acts": acts,
            "action": action,
            "reward": reward,
            "terminal": seats.training(flat, "terminal", device),
        }
        if (image := seats.images(flat, device)) is not None:
            rows["image"] = image
        if (legal := seats.legal(flat, device)) is not None:
            rows["legal"] = legal
        if seats.targets is not None:
            rows["truth"] = seats.truth(flat, device)
        there = alive.view(L, B, G)
        before = torch.cat([torch.zeros_like(there[:1]), there[:-1]])
        begins = first[..., None] | ((there > 0) & (before == 0))
        moved = action.view(L, B, G, -1)
        prev_action = torch.cat([torch.zeros_like(moved[:1]), moved[:-1]])
        rows = {k: v.view(L, B, *v.shape[1:])[context:].flatten(0, 1) for k, v in rows.items()}
        rows |= {"begins": begins[context:], "first": first[context:], "last": last[context:].float()}
        rows["prev_action"] = prev_action[context:].masked_fill(rows["begins"][..., None], 0)
        return rows | self._start(batch, B)

    def _start(self, batch: Mapping[str, Tensor], B: int) -> Tensors:
        """The state that each sequence starts from: that of its context row, or nothing."""
        rssm, channel, start = self.model.rssm, self.channel, self.model.initial(B)
        rows = {"deter": start.deter, "stoch": start.stoch}
        rows |= {"under_way": start.traffic.under_way, "bits": start.traffic.bits}
        if self.config.replay_context:
            stored = {k: batch[f"latent/{k}"][:, 0].to(self.device) for k in self.latent_fields}
            known = torch.ones(B, dtype=torch.bool, device=self.device)
            if "latent_valid" in batch:
                known = batch["latent_valid"].to(self.device)
            rows["deter"] = stored["deter"].float() * known[:, None, None]
            rows["stoch"] = rssm.unpack(stored["stoch"], torch.float32) * known[:, None, None]
            if channel.width:
                rows["under_way"] = channel.unpack(stored["messages"]) * known[:, None, None, None]
                rows["bits"] = stored["bits"] * known[:, None]
        return rows

    def observe(self, rows: Tensors) -> tuple[Tensor, Tensor, Tensor, Tensors]:
        """Filter prepared rows: deter, stoch and posterior logits ``(T, B, G, ...)``, and what was said."""
        model, config = self.model, self.config
        T, B, G = rows["begins"].shape
        tokens = model.encode(rows["seen"], rows.get("image"), rows["alive"], rows["acting"]).view(T, B, G, -1)
        action = model.embed_action(rows["prev_action"].flatten(0, 1)).view(T, B, G, -1)
        uniform = self._rand(self.generator, T, B, G, model.rssm.groups)
        alive = rows["alive"].view(T, B, G)
        memory = Memory(rows["deter"], rows["stoch"], Traffic(rows["under_way"], rows["bits"]))
        deters, stochs, logits, messages, bits = [], [], [], [], []
        # unbind, not indexing: the backward of one unbind is one stack, of T indexings T additions of zeros.
        steps = [x.unbind(0) for x in (action, tokens, rows["begins"], rows["first"], uniform, alive)]
        for act, tok, begins, first, noise, there in zip(*steps, strict=True):
            deter, stoch, logit, traffic = model.observe_step(memory, act, tok, begins, first, noise)
            if self.channel.width:
                said = self._rand(self.generator, B, G, config.channel.tokens)
                lost = self._rand(self.generator, B, G)
                turned = self._turned(self.generator, B)
                traffic, _ = model.speak(model.feat(deter, stoch), logit, traffic, there, said, lost, turned)
                messages.append(self.channel.pack(traffic.under_way.detach()))
                bits.append(traffic.bits)
            memory = Memory(deter, stoch, traffic)
            deters.append(deter)
            stochs.append(stoch)
            logits.append(logit)
        said_ = {"messages": torch.stack(messages), "bits": torch.stack(bits)} if messages else {}
        return torch.stack(deters), torch.stack(stochs), torch.stack(logits), said_

    def loss(self, rows: Tensors) -> tuple[Tensor, Tensors, Tensors]:
        """The whole loss ``()``, the refreshed latents ``(B, T, ...)`` and metrics."""
        c, model = self.config, self.model
        T, B, G = rows["begins"].shape
        N = T * B
        alive = rows["alive"]

        # World model: everyone filters alone; the prior is told what the others did
        deter, stoch, logits, said = self.observe(rows)
        feat = model.feat(deter, stoch).view(N, G, -1)
        before = torch.cat([rows["stoch"][None], stoch[:-1]]).masked_fill(rows["begins"][..., None], 0)
        prior = model.prior(deter.view(N, G, -1), before.view(N, G, -1), rows["prev_action"].view(N, G, -1), alive)
        losses = model.losses(feat, logits.view(N, G, -1), prior, rows)
        intended = rows["action"]
        if model.first is not None and c.intent_target == "policy":
            intended = self.intended(feat.detach(), rows.get("legal"))
        losses |= model.belief_losses(feat, logits.view(N, G, -1), rows | {"intended": intended})
        weights = dict.fromkeys(losses, alive)
        scales = c.loss_scales.model_dump()
        with torch.no_grad():
            predicted = torch.stack([scales[k.split("/")[0]] * v for k, v in losses.items()]).sum(0)
            signal = (predicted * alive).sum(-1).view(T, B).mean(0)

        metrics: Tensors = {}
        if c.learns_to_act:
            judged, counted, acting = self._behaviour(feat, rows)
            losses, weights, metrics = losses | judged, weights | counted, acting

        # Imagined steps are weighed by how likely they are reached, and not divided by that again.
        steps = alive[-min(c.imagination_starts or T, T) * B :].sum() * c.imagination_length
        means = {
            k: (weights[k] * v).sum() / (steps if k in ("policy", "value") else weights[k].sum()).clamp(min=1)
            for k, v in losses.items()
        }
        total = torch.stack([scales[k.split("/")[0]] * v for k, v in means.items()]).sum()
        with torch.no_grad():
            metrics |= {f"loss/{k}": v.detach() for k, v in means.items()} | {"loss/total": total.detach()}
            metrics |= self._belief_metrics(model.mind(feat, logits.view(N, G, -1)), rows)
            refreshed = {
                "deter": deter.detach().nan_to_num(0.0).transpose(0, 1).to(torch.float16),
                "stoch": model.rssm.pack(stoch.detach()).transpose(0, 1),
                **{k: v.transpose(0, 1) for k, v in said.items()},
                SIGNAL: signal,
            }
        return total, refreshed, metrics

    def _behaviour(self, feat: Tensor, rows: Tensors) -> tuple[Tensors, Tensors, Tensors]:
        """Losses of actor and critic, what each of their terms weighs, and metrics, from features ``(N, G, F)``."""
        c = self.config
        T, B, G = rows["begins"].shape
        H = c.imagination_length

        # Joint imagination, from replayed joint states, with no gradient into the model
        K = min(c.imagination_starts or T, T)
        tail = slice((T - K) * B, None)
        there = rows["alive"][tail]
        imagined, intents, actions, active, legal = self.imagine(feat[tail].detach(), there, rows["acting"][tail])
        reward, cont, slow_value = self.imagined_heads(imagined, intents, there)
        value_logits, value = self.values(imagined, intents, there)

        # Actor and critic
        returns = lambda_return(reward, torch.zeros_like(cont), 1 - cont, value, 1.0, c.lam)
        weight = cont.cumprod(0)[:-1] * there
        scale = self._scale(returns, there)
        advantage = (returns - value[:-1]) / scale
        flat = torch.cat([imagined, intents], -1)[:-1].flatten(0, 1)
        params = self.actor(flat)
        log_prob = self.actor.log_prob(params, actions.flatten(0, 1), legal).view(H, -1, G)
        entropy = self.actor.entropy(params, legal).view(H, -1, G)
        losses = {"policy": -(advantage * log_prob + c.entropy * entropy)}
        weights = {"policy": weight * active, "value": weight}
        losses["value"] = self.critic_loss(value_logits[:-1], returns, slow_value[:-1])

        # Replay critic: fixed discount and recorded ends, bootstrapped from the first imagined return
        replayed = feat[tail] if c.replay_value_gradient else feat[tail].detach()
        replay_logits, replay_value = self.values(replayed[None], intents[:1], there)
        tail_rows = {k: rows[k][tail].view(K, B, G) for k in ("reward", "terminal", "alive")}
        last = torch.maximum(rows["last"][T - K :, :, None].expand(-1, -1, G), tail_rows["terminal"])
        bootstrap = returns[0].view(K, B, G)
        discount = 1 - 1 / c.horizon
        targets = lambda_return(tail_rows["reward"], last, tail_rows["terminal"], bootstrap, discount, c.lam)
        losses["repval"] = self.critic_loss(
            replay_logits[0].view(K, B, G, -1)[:-1], targets, slow_value[0].view(K, B, G)[:-1]
        )
        weights["repval"] = (1 - last[:-1]) * tail_rows["alive"][:-1]
        with torch.no_grad():
            acted = weights["policy"].sum().clamp(min=1)
            metrics = {
                "imagined/reward": reward.mean(),
                "imagined/return": returns.mean(),
                "imagined/value": value.mean(),
                "imagined/continue": cont.mean(),
                "replay/value": replay_value.mean(),
                "return_scale": scale,
                "policy_entropy": (entropy * weights["policy"]).sum() / acted,
            }
        return losses, weights, metrics

    @torch.no_grad()
    def imagine(
        self, feat: Tensor, alive: Tensor, acting: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Roll all agents forward from ``(M, G, F)``.

        Returns features ``(H + 1, M, G, F)``, intents ``(H + 1, M, G, I)``, actions ``(H, M, G, A)``, whose actions
        counted ``(H, M, G)``, and what was legal ``(H * M, G, D)``, if the environment has masks.
        """
        model, H = self.model, self.config.imagination_length
        M, G = alive.shape
        uniform = self._rand(self.generator, H, M, G, model.rssm.groups)
        noise = self.actor.noise((H, M, G), self.generator)
        feats, intents, actions, actives, legals = [feat], [self.intents(feat)], [], [], []
        for h in range(H):
            turn, legal = model.predict_legal(feat)
            active = alive if turn is None else alive * (acting if h == 0 else turn)
            params = self.actor(torch.cat([feat, intents[-1]], -1))
            chosen = self.actor.sample(params, Noise(noise.uniform[h], noise.normal[h]), legal)
            deter, stoch, _ = feat.split([model.rssm.deter, model.rssm.stoch, G], -1)
            deter, stoch = model.imagine_step(deter, stoch, chosen * active[..., None], alive, uniform[h])
            feat = model.feat(deter, stoch)
            feats.append(feat)
            intents.append(self.intents(feat))
            actions.append(chosen)
            actives.append(active)
            if legal is not None:
                legals.append(legal)
        stacked = torch.cat(legals) if legals else None
        return torch.stack(feats), torch.stack(intents), torch.stack(actions), torch.stack(actives), stacked

    @torch.no_grad()
    def imagined_heads(self, imagined: Tensor, intents: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, continuation and slow value, each ``(H + 1, M, G)``."""
        shape, flat = imagined.shape[:3], imagined.flatten(0, 1)
        there = alive.expand(shape).flatten(0, 1)
        judged = self.model.judged(flat, there)
        slow = twohot_mean(self.slow_critic(flat, intents.flatten(0, 1), there), self.model.bins)
        reward, cont = self.model.predict_reward(judged), self.model.predict_continue(judged)
        return reward.view(shape), cont.view(shape), slow.view(shape)

    def _scale(self, returns: Tensor, alive: Tensor) -> Tensor:
        """The scale of advantages ``()``, by the returns ``(H, M, G)`` of agents that are ``alive`` ``(M, G)``."""
        there = alive.expand_as(returns)
        if self.all_gather is not None:
            returns, there = self.all_gather(returns), self.all_gather(there)
        return self.return_scale.update(returns, there)

    def values(self, feat: Tensor, intents: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Critic logits ``(H, M, G, bins)`` with gradient, and values ``(H, M, G)`` without."""
        shape = feat.shape[:3]
        logits = self.critic(feat.flatten(0, 1), intents.flatten(0, 1), alive.expand(shape).flatten(0, 1))
        return logits.view(*shape, -1), twohot_mean(logits.detach(), self.model.bins).view(shape)

    def critic_loss(self, logits: Tensor, returns: Tensor, slow: Tensor) -> Tensor:
        """Two-hot cross-entropy ``(H, M, G)`` with the returns and, as a regulariser, with the slow critic's value."""
        weights = (1.0, self.config.slow_regulariser)
        flat = twohot_losses(logits.flatten(0, 2), (returns.flatten(), slow.flatten()), weights, self.model.bins)
        return flat.view(returns.shape)

    def _belief_metrics(self, mind: Tensor, rows: Tensors) -> Tensors:
        """How often the likeliest value of a target is the true one, by agent."""
        metrics: Tensors = {}
        seats = self.seats
        if self.model.zero is not None and seats.targets is not None:
            zero = self.model.zero(mind)
            for g, name in enumerate(seats.names):
                owned = [c for c in seats.targets.components if c.owners[g]]
                hits = [zero[:, g, c.columns].argmax(-1) == rows["truth"][:, g, c.columns].argmax(-1) for c in owned]
                there = rows["alive"][:, g]
                if hits:
                    right = torch.stack(hits).float().mean(0)
                    metrics[f"belief/{name}/accuracy"] = (right * there).sum() / there.sum().clamp(min=1)
        return metrics

    def report(self, batch: Mapping[str, Tensor]) -> Tensors:
        """See ``contract.Agent``: how much of what they saw the agents would have predicted; it draws no videos."""
        with torch.no_grad(), self.aside():
            _, _, metrics = self.loss(self.prepare(batch))
        return {f"report/{k}": v for k, v in metrics.items() if k.startswith(("loss/", "belief/"))}

    def _turned(self, generator: torch.Generator, batch: int) -> Tensor | None:
        """The noise ``(batch, G, L)`` of a shuffled channel."""
        settings = self.config.channel
        return self._rand(generator, batch, len(self.seats.names), settings.tokens) if settings.shuffled else None

    def _rand(self, generator: torch.Generator, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=self.device)
