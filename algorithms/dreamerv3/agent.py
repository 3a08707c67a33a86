"""DreamerV3 (Hafner et al., Nature 2025): a world model from replay, a policy from imagination.

Shapes: ``B`` sequences of ``T`` replayed steps, ``N = T * B`` rows with time first, ``H`` imagined steps, ``F`` the
width of a feature, ``A`` the flat action width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from oneiros.algorithms.contract import SIGNAL, Field, Mode, SpaceDict, Tensors
from oneiros.algorithms.dreamerv3.actor import ACTION_MASK, ActionLayout, Actor, Noise
from oneiros.algorithms.dreamerv3.config import Hyperparameters
from oneiros.algorithms.dreamerv3.encoder_decoder import check_observation
from oneiros.algorithms.dreamerv3.openloop import open_loop
from oneiros.algorithms.dreamerv3.returns import ReturnScale, lambda_return
from oneiros.algorithms.dreamerv3.rssm import Latents
from oneiros.algorithms.dreamerv3.step import PolicyStep
from oneiros.algorithms.dreamerv3.world_model import WorldModel
from oneiros.algorithms.nn.distributions import twohot_losses, twohot_mean, twohot_smooth_mean
from oneiros.algorithms.nn.layers import MLP, frozen
from oneiros.algorithms.nn.learning_agent import LearningAgent
from oneiros.algorithms.nn.pieces import compiled, make_ready
from oneiros.algorithms.nn.precision import choose_compile, choose_precision
from oneiros.algorithms.nn.weights import Weights
from torch import Tensor, nn


class Dream(NamedTuple):
    """Imagined steps; ``feat``, ``reward`` and ``cont`` are ``(H + 1, M, ...)``, nothing has gradients but ``returns``.

    The first reward is that of arriving where the dream begins, and 0 here.
    """

    feat: Tensor
    action: Tensor
    """``(H, M, A)``."""
    reward: Tensor
    cont: Tensor
    slow_value: Tensor
    """``(H, M)``."""
    mask: Tensor | None
    """Legal actions ``(H * M, n)``."""
    outputs: list[Tensor]
    """What ``Actor.recall`` takes for all steps, each ``(H * M, ...)``."""
    returns: Tensor | None
    """Lambda-returns ``(H, M)`` with the gradient to the actor, where it learns through the dynamics."""


class DreamerV3(LearningAgent):
    """The agent; see ``contract.Agent`` for what the methods promise.

    Args:
        config: hyperparameters.
        obs_space, action_space: flat spaces (``contract.SpaceDict``).
        device: where the model lives.
        seed: of the initialisation and of every sample drawn here.
        role: ``"policy"`` builds only what acting needs.

    Raises:
        UnsupportedSpace: for a space that it cannot serve.
    """

    model: WorldModel
    actor: Actor
    critic: MLP
    slow_critic: MLP
    return_scale: ReturnScale

    Config = Hyperparameters
    PRESETS = resources.files(__package__ or "oneiros.algorithms.dreamerv3") / "presets.yaml"

    PARTS: ClassVar[dict[str, tuple[str, ...]]] = {
        "world_model": ("model/",),
        "encoder": ("model/encoder.",),
        "dynamics": ("model/rssm.",),
        "decoder": ("model/decoder.",),
        "reward": ("model/reward.",),
        "continue": ("model/cont.",),
        "mask": ("model/mask.",),
        "actor": ("actor/",),
        "critic": ("critic/", "slow_critic/", "return_scale/"),
    }
    """What fine-tuning can begin anew, by name: how the keys of their entries in ``state_dict`` begin."""

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
        self.check_spaces(obs_space, action_space)
        self.layout = ActionLayout(action_space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = WorldModel(config, obs_space, self.layout, heads=role == "learner")
            units, feat = config.width("units"), self.model.features
            self.actor = Actor(feat, self.layout, config.actor_layers, units, config.actor_unimix)
            if role == "learner":
                self.critic = MLP(feat, config.critic_layers, units, config.bins, scale=0.0)
                self.slow_critic = MLP(feat, config.critic_layers, units, config.bins, scale=0.0)
        self.act_generator = torch.Generator(self.device).manual_seed(seed + 1)
        rssm = self.model.rssm
        self.latent_fields = {
            "deter": Field((rssm.deter,), np.dtype(np.float16)),
            "stoch": Field((rssm.groups,), np.dtype(str(rssm.stored).removeprefix("torch."))),
        }
        # Acting's weights come first, so that they are one slice of the buffer.
        policy: list[nn.Module] = [self.model.encoder, rssm, self.actor]
        self.model.to(self.device)
        self.actor.to(self.device)
        if role == "policy":
            self.weights = Weights(policy, torch.float32, trained=False)
            self.policy_size = self.weights.flat.numel()
            return
        self.slow_critic.load_state_dict(self.critic.state_dict())
        self.critic.to(self.device)
        self.slow_critic.to(self.device)
        self.dtype = choose_precision(config.precision, self.device)
        # Small recurrent steps gain nothing from bfloat16 on a CPU: the products are too small to pay for the casts.
        small = self.device.type == "cpu" and rssm.deter <= 1024
        self.scan_dtype = torch.float32 if small else self.dtype
        heads = [self.model.decoder, self.model.reward, self.model.cont, self.critic]
        heads += [self.model.mask] if self.model.mask is not None else []
        self.policy_size = sum(p.numel() for m in policy for p in m.parameters())
        self.weights = Weights([*policy, *heads], self.dtype)
        self.slow_weights = Weights([self.slow_critic], self.dtype, trained=False)
        self.return_scale = ReturnScale(config.return_rate).to(self.device)
        self.prepare_learning(config, seed)
        self.batch_keys = (
            *(*self.obs_space, *self.action_space, "reward", "is_first", "is_last", "is_terminal"),
            *("latent/deter", "latent/stoch", "latent_valid"),
        )
        if choose_compile(config.compile, self.device):
            self.compile()

    @classmethod
    def check_spaces(cls, obs_space: SpaceDict, action_space: SpaceDict) -> None:
        """Raise ``UnsupportedSpace`` for spaces that it cannot serve, without building anything."""
        layout = ActionLayout(action_space)
        for key, space in obs_space.items():
            check_observation(key, space)
        layout.check_mask(obs_space.get(ACTION_MASK))

    # ---- acting ------------------------------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> Tensors:
        """Zeros: ``deter`` ``(N, D)``, ``stoch`` ``(N, K * S)`` and the last action, flat ``(N, A)``."""
        state = self.model.initial_state(batch)
        return {**state, "action": torch.zeros(batch, self.layout.width, device=self.device)}

    @torch.inference_mode()  # a fifth faster than no_grad, where operations are this small
    def act(
        self, obs: Mapping[str, Tensor], is_first: Tensor, state: Tensors, mode: Mode = "train"
    ) -> tuple[Tensors, Tensors, Tensors]:
        """See ``contract.Policy``. ``mode="eval"`` takes the most likely action, ``"train"`` samples."""
        N, rssm = is_first.shape[0], self.model.rssm
        obs = {k: obs[k].to(self.device) for k in self.obs_space}
        first = is_first.to(self.device)[:, None]
        tokens = rssm.post_tokens(self.model.encoder(obs, torch.float32))
        embedded = rssm.gru.embed_action(state["action"].masked_fill(first, 0))
        uniform = torch.rand(N, rssm.groups, generator=self.act_generator, device=self.device)
        deter, stoch, _ = rssm.observe_step(state["deter"], state["stoch"], embedded, tokens, first, uniform)
        params = self.actor(torch.cat([deter, stoch], -1))
        mask = obs[ACTION_MASK].float() if ACTION_MASK in obs else None
        if mode == "eval":
            flat = self.actor.mode(params, mask)
        else:
            flat = self.actor.sample(params, self.actor.noise((N,), self.act_generator), mask)
        action = self.layout.unflatten(flat)
        state = {"deter": deter, "stoch": stoch, "action": self.layout.flatten(action)}
        latents = {"deter": deter.to(torch.float16), "stoch": rssm.pack(stoch)}
        return action, state, latents

    def step_module(self) -> tuple[nn.Module, Mapping[str, Field]]:
        """See ``contract.ExplicitPolicy``."""
        step = PolicyStep(self.model.encoder, self.model.rssm, self.actor, self.layout)
        return step, step.fields()

    # ---- learning ----------------------------------------------------------------------------------------------------

    def prepare(self, batch: Mapping[str, Tensor]) -> Tensors:
        """Split a batch ``(B, context + T, ...)`` into time-major rows and the state they start from.

        Observations, ``reward``, ``is_last`` and ``is_terminal`` become ``(N, ...)``; ``is_first`` ``(T, B)``;
        ``prev_action`` ``(T, B, A)`` is the action before each row; ``deter`` and ``stoch`` are the start.
        """
        context = self.config.replay_context
        B, L = batch["is_first"].shape
        T = L - context
        assert T >= 2, f"sequences of {L} rows leave {T} to train on"
        rows: Tensors = {}
        for key in (*self.obs_space, "reward", "is_last", "is_terminal"):
            value = batch[key]
            assert value.shape[:2] == (B, L), f"{key} is {tuple(value.shape)}, expected ({B}, {L}, ...)"
            rows[key] = value[:, context:].transpose(0, 1).flatten(0, 1).to(self.device)
        for key in ("reward", "is_last", "is_terminal"):
            rows[key] = rows[key].float()
        rows["is_first"] = batch["is_first"][:, context:].t().to(self.device)
        action = {k: batch[k].transpose(0, 1).flatten(0, 1).to(self.device) for k in self.action_space}
        flat = self.layout.flatten(action).view(L, B, -1)
        rssm, start = self.model.rssm, self.model.rssm.initial(B, self.scan_dtype, self.device)
        if context:
            rows["prev_action"] = flat[:-1]
            rows["deter"] = batch["latent/deter"][:, 0].to(self.device).to(self.scan_dtype)
            rows["stoch"] = rssm.unpack(batch["latent/stoch"][:, 0].to(self.device), self.scan_dtype)
            if "latent_valid" in batch:
                unknown = ~batch["latent_valid"].to(self.device)[:, None]
                rows["deter"] = rows["deter"].masked_fill(unknown, 0)
                rows["stoch"] = rows["stoch"].masked_fill(unknown, 0)
        else:
            rows["prev_action"] = torch.cat([torch.zeros_like(flat[:1]), flat[:-1]])
            rows["deter"], rows["stoch"] = start.deter, start.stoch
        return rows

    def loss(self, rows: Tensors) -> tuple[Tensor, Tensors, Tensors]:
        """The whole loss ``()``, the refreshed latents ``(B, T, ...)`` and metrics."""
        c, rssm = self.config, self.model.rssm
        T, B = rows["is_first"].shape
        N = T * B
        obs = {k: rows[k] for k in self.obs_space}

        # World model
        tokens = self.encode(obs).view(T, B, -1)
        start = Latents(rows["deter"], rows["stoch"])
        uniform = self._rand(T, B, rssm.groups)
        latents, logits = rssm.observe(tokens, rows["prev_action"], rows["is_first"], start, uniform)
        feat = latents.feat.view(N, -1).to(self.dtype)
        losses, metrics = self.model.losses(feat, logits.view(N, -1), obs, rows["reward"], rows["is_terminal"])
        signal = torch.stack(self._scaled(losses)).detach().sum(0).view(T, B).mean(0)

        # Imagination, from every replayed state, with no gradient into the model
        K = min(c.imagination_starts or T, T)
        dream = self.dream(feat[(T - K) * B :].detach())
        imagined, reward, cont = dream.feat, dream.reward, dream.cont
        value_logits, value = self.values(imagined[:-1])
        with torch.no_grad():
            value = torch.cat([value, self.value(imagined[-1])[None]])

        # Actor and critic
        returns = lambda_return(reward, torch.zeros_like(cont), 1 - cont, value, 1.0, c.lam)
        weight = cont.cumprod(0)[:-1].flatten()
        gathered = returns if self.all_gather is None else self.all_gather(returns)
        scale = self.return_scale.update(gathered)
        advantage = ((returns - value[:-1]) / scale).flatten()
        flat = imagined[:-1].flatten(0, 1)
        if dream.returns is None:
            log_prob, entropy = self.acted(flat, dream.outputs, dream.action.flatten(0, 1), dream.mask)
            gain = advantage * log_prob
        else:
            entropy = self.actor.entropy(self.actor.recall(flat, dream.outputs), dream.mask)
            gain = dream.returns.flatten() / scale
        losses["policy"] = self.actor_loss(gain, entropy, weight)
        losses["value"] = self.critic_loss(value_logits, returns.flatten(), dream.slow_value.flatten(), weight)

        # Replay critic: fixed discount and recorded ends, bootstrapped from the first imagined return
        replayed = feat[(T - K) * B :] if c.replay_value_gradient else feat[(T - K) * B :].detach()
        replay_logits, replay_value = self.replay_values(replayed[None])
        row = {k: rows[k].view(T, B)[T - K :] for k in ("reward", "is_last", "is_terminal")}
        targets = lambda_return(
            row["reward"], row["is_last"], row["is_terminal"], returns[0].view(K, B), 1 - 1 / c.horizon, c.lam
        )
        losses["repval"] = self.critic_loss(
            replay_logits[: (K - 1) * B],
            targets.flatten(),
            dream.slow_value[0][: (K - 1) * B],
            1 - row["is_last"][:-1].flatten(),
        )

        total = torch.stack([v.mean() for v in self._scaled(losses)]).sum()
        with torch.no_grad():
            metrics.update({f"loss/{k}": v.detach().mean() for k, v in losses.items()})
            metrics.update(
                {
                    "loss/total": total.detach(),
                    "imagined/reward": reward[1:].mean(),
                    "imagined/return": returns.mean(),
                    "imagined/value": value.mean(),
                    "imagined/continue": cont.mean(),
                    "replay/value": replay_value.mean(),
                    "advantage_magnitude": advantage.abs().mean(),
                    "return_scale": scale,
                    "policy_entropy": entropy.detach().mean(),
                    "policy_randomness": self.actor.randomness(entropy.detach().mean()),
                }
            )
            refreshed = {
                "deter": latents.deter.detach().nan_to_num(0.0).transpose(0, 1).to(torch.float16),
                "stoch": rssm.pack(latents.stoch.detach()).transpose(0, 1),
                SIGNAL: signal,
            }
        return total, refreshed, metrics

    def encode(self, obs: Tensors) -> Tensor:
        """Tokens ``(N, E)`` of replayed observations, in the compute dtype."""
        return self.model.encoder(obs, self.dtype)  # type: ignore[no-any-return]

    def dream(self, feat: Tensor) -> Dream:
        """Imagine from ``(M, F)``; the actor alone gets gradients, and only if it learns through the dynamics."""
        if self.config.actor_gradient == "reinforce":
            with torch.no_grad():
                imagined, actions, outputs = self.imagine(feat)
                return Dream(imagined, actions, *self.imagined_heads(imagined), outputs, None)
        with frozen([self.model, self.critic]):
            imagined, actions, outputs = self.imagine(feat)
            reward, cont, slow_value, mask = self.imagined_heads(imagined)
            smooth = (twohot_smooth_mean(head(imagined.flatten(0, 1))) for head in (self.model.reward, self.critic))
            gain, value = (x.view(reward.shape) for x in smooth)
            returns = lambda_return(gain, torch.zeros_like(cont), 1 - cont, value, 1.0, self.config.lam)
        mask = None if mask is None else mask.detach()
        feats, actions, slow_value = imagined.detach(), actions.detach(), slow_value.detach()
        outputs = [output.detach() for output in outputs]
        return Dream(feats, actions, reward.detach(), cont.detach(), slow_value, mask, outputs, returns)

    def imagine(self, feat: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Roll the policy forward from ``(M, F)``: features ``(H + 1, M, F)`` and actions ``(H, M, A)``.

        Last come the outputs of the actor's layers, ``(H * M, ...)``, for ``Actor.recall``.
        """
        H, M = self.config.imagination_length, feat.shape[0]
        uniform = self._rand(H, M, self.model.rssm.groups)
        noise = self.actor.noise((H, M), self.generator)
        feats, actions, outputs = [feat], [], []
        for h in range(H):
            feat, action, output = self.imagine_step(feat, uniform[h], noise.uniform[h], noise.normal[h])
            feats.append(feat)
            actions.append(action)
            outputs.append(output)
        return torch.stack(feats), torch.stack(actions), [torch.cat(steps) for steps in zip(*outputs, strict=True)]

    def imagine_step(
        self, feat: Tensor, uniform: Tensor, act_uniform: Tensor, act_normal: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Act and predict: ``(M, F)`` to the next ``(M, F)``, the action ``(M, A)``, and what ``recall`` takes."""
        mask = self.model.predict_mask(feat)
        params, outputs = self.actor.remember(feat)
        action = self.actor.sample(params, Noise(act_uniform, act_normal), mask)
        deter, stoch = feat.split([self.model.rssm.deter, self.model.rssm.stoch], -1)
        deter, stoch = self.model.rssm.imagine_step(deter, stoch, action, uniform)
        return torch.cat([deter, stoch], -1), action, outputs

    def imagined_heads(self, imagined: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What ``Dream`` holds of these kinds, of ``(H + 1, M, F)``: reward, continuation, slow value and masks."""
        (steps, M), flat = imagined.shape[:2], imagined.flatten(0, 1)
        before, after = flat[:-M], flat[M:]
        slow = twohot_mean(self.slow_critic(before), self.model.bins).view(-1, M)
        reward = self.model.predict_reward(after).view(-1, M)
        reward = torch.cat([torch.zeros_like(reward[:1]), reward])
        return reward, self.model.predict_continue(flat).view(steps, M), slow, self.model.predict_mask(before)

    def values(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """Critic logits ``(H * M, bins)`` with gradient, and values ``(H, M)`` without, of ``(H, M, F)``."""
        logits = self.critic(feat.flatten(0, 1))
        return logits, twohot_mean(logits.detach(), self.model.bins).view(feat.shape[:2])

    def replay_values(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """``values`` as it is written here: on a CPU, compiling it once more does not pay for replay's few rows."""
        return type(self).values(self, feat)

    def value(self, feat: Tensor) -> Tensor:
        """The critic's value ``(M,)`` of ``(M, F)``."""
        return twohot_mean(self.critic(feat), self.model.bins)

    def acted(
        self, feat: Tensor, outputs: Sequence[Tensor], action: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Log probability ``(M,)`` of what the actor did in imagination, and its entropy ``(M,)``, with gradients."""
        params = self.actor.recall(feat, outputs)
        return self.actor.log_prob(params, action, mask), self.actor.entropy(params, mask)

    def actor_loss(self, gain: Tensor, entropy: Tensor, weight: Tensor) -> Tensor:
        """What lowers it raises ``gain``, in REINFORCE advantage times log probability, and entropy (DreamerV3 eq. 6).

        All are ``(M,)``; the entropy is in nats.
        """
        return -weight * (gain + self.config.entropy * entropy)

    def critic_loss(self, logits: Tensor, returns: Tensor, slow: Tensor, weight: Tensor) -> Tensor:
        """Two-hot cross-entropy ``(M,)`` with the returns and, as a regulariser, with the slow critic's value."""
        bins = self.model.bins
        weights = (1.0, self.config.slow_regulariser)
        return weight * twohot_losses(logits, (returns, slow), weights, bins)

    def report(self, batch: Mapping[str, Tensor]) -> Tensors:
        """See ``contract.Agent``: the first half of each sequence is filtered, the second half imagined."""
        with self.aside():
            return open_loop(self.model, self.prepare(batch), self.generator)

    def compile(self) -> None:
        """Compile the small pieces of the update; the loops over time stay in Python."""
        make_ready(self.device.type)
        structure = repr((self.config, self.obs_space, self.action_space, self.device, self.dtype, self.scan_dtype))

        def piece(method: Any) -> Any:
            return compiled(method, structure)

        rssm, model = self.model.rssm, self.model
        rssm.tapped_step = piece(rssm.tapped_step)  # type: ignore[method-assign]
        model.losses = piece(model.losses)  # type: ignore[method-assign]
        # Gradients through the dynamics want graphs that the pieces for imagination without any cannot give.
        imagining = ("imagine_step", "imagined_heads") if self.config.actor_gradient == "reinforce" else ()
        for name in (*imagining, "values", "acted"):
            setattr(self, name, piece(getattr(self, name)))
        if self.device.type == "cuda":
            self.replay_values = self.values  # type: ignore[method-assign]
            # What a CPU gains nothing by costs a GPU launches, and passes over its memory.
            self.encode, self.value = piece(self.encode), piece(self.value)  # type: ignore[method-assign]
            self.optimiser.compile()

    def _scaled(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        scales = self.config.loss_scales.model_dump()
        return [scales[name.split("/")[0]] * loss for name, loss in losses.items()]

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)
