"""The belief agent's hyperparameters: DreamerV3's, and what several agents and their beliefs add."""

from __future__ import annotations

import math
from typing import Literal

from oneiros.algorithms.dreamerv3.config import Hyperparameters as DreamerHyperparameters
from oneiros.algorithms.dreamerv3.config import LossScales as DreamerLossScales
from pydantic import BaseModel, ConfigDict, Field, model_validator


class LossScales(DreamerLossScales):
    """Weights of the losses in the total."""

    legal: float = Field(default=1.0, ge=0, description="whose turn it is, and which actions are legal")
    zero: float = Field(default=1.0, ge=0, description="an agent's belief about its targets")
    intent: float = Field(default=1.0, ge=0, description="a partner's next action")
    partner: float = Field(default=0.3, ge=0, description="a partner's latent")
    partner_belief: float = Field(default=1.0, ge=0, description="a partner's belief about its targets")


class ChannelSettings(BaseModel):
    """The messages that agents may send each other; none while ``tokens`` is 0."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(default=0, ge=0, le=64, description="tokens in a message; 0: agents send none")
    vocabulary: int = Field(default=8, ge=2, le=255, description="different tokens")
    delay: int = Field(default=1, ge=1, le=32, description="steps until a message is read")
    drop_rate: float = Field(default=0.0, ge=0, le=1, description="share of messages that are lost")
    shuffled: bool = Field(
        default=False,
        description="an ablation: every token becomes a random one on its way; messages cost the same and say nothing",
    )
    bit_budget: float | None = Field(
        default=None, gt=0, description="bits that an agent may send in an episode; null: as many as it likes"
    )
    gate: Literal["always", "believed_wrong"] = Field(
        default="always",
        description="when an agent speaks: in every step, or when it believes that a partner believes otherwise",
    )
    gate_nats: float = Field(
        default=0.5,
        ge=0,
        description="difference between its own and the partner's belief from which a gated one speaks",
    )
    listeners: dict[str, list[str]] | None = Field(
        default=None, description="who reads whose messages, by sender; null: everyone reads everyone's"
    )

    @property
    def bits(self) -> float:
        """Information in one message."""
        return self.tokens * math.log2(self.vocabulary)


class Hyperparameters(DreamerHyperparameters):
    """What may be set about the agent."""

    variant: Literal["belief", "independent", "centralised"] = Field(
        "belief",
        description="belief: local actors, joint imagination, a critic that sees all; independent: agents that know "
        "nothing of each other; centralised: one mind, which sees all observations and acts for everyone",
    )
    weights: Literal["shared", "separate"] = Field(
        "shared", description="whether all agents learn the same weights, told apart by an id, or each its own"
    )
    reward: Literal["own", "team"] = Field("own", description="what an agent maximises")
    first_order: bool = Field(True, description="beliefs about the partners; their intents go to actor and critic")
    zero_order_gradient: bool = Field(
        False, description="whether the targets shape the model; off: the head is a probe"
    )
    zero_order_reads: Literal["sample", "posterior"] = Field(
        "sample",
        description="what beliefs about the targets are computed from. sample: the one sample of the latent that the "
        "actor sees; posterior: the probabilities that it was drawn from, which are less noisy and learn sooner",
    )
    intent_target: Literal["policy", "replayed"] = Field(
        "policy",
        description="what beliefs about a partner's next action learn from. policy: what the partner would do now in "
        "each replayed step; replayed: what was done, by policies that are gone, or by players that are not of ours",
    )
    posterior_scale: float = Field(
        1.0,
        gt=0,
        description="scale of the posterior's initial logits; where little is learnt because latents are almost noise "
        "at first, 3 makes them say something from the beginning",
    )
    first_order_gradient: bool = Field(False, description="whether beliefs about partners shape the model")
    belief_layers: int = Field(2, ge=1, description="layers of the belief heads")
    context: int = Field(64, ge=4, description="width of the attention over the other agents")
    channel: ChannelSettings = Field(default_factory=ChannelSettings, description="messages between the agents")
    loss_scales: LossScales = Field(default_factory=LossScales)

    latent: Literal["categorical"] = Field("categorical", description="kind of latents")
    actor_gradient: Literal["reinforce"] = Field("reinforce", description="how the actor learns")
    reward_gradient: Literal[True] = Field(True, description="the reward head's gradient reaches the world model")
    precision: Literal["float32"] = Field("float32", description="compute dtype")
    compile: Literal["off"] = Field("off", description="the belief agent is not compiled")

    @model_validator(mode="after")
    def _consistent(self) -> Hyperparameters:
        if self.variant == "independent" and self.channel.tokens:
            raise ValueError("independent agents send no messages: channel.tokens must be 0, or variant another.")
        if self.channel.gate == "believed_wrong" and not self.first_order:
            raise ValueError("the gate believed_wrong needs beliefs about partners: first_order must be true.")
        if self.variant == "centralised" and self.weights == "separate":
            raise ValueError("one centralised mind has one set of weights: weights must be shared, or variant another.")
        return self

    @property
    def models_partners(self) -> bool:
        """Whether agents have beliefs about each other."""
        return self.first_order and self.variant != "independent"

    @property
    def learns_to_act(self) -> bool:
        """Whether actor or critic learn anything; where they do not, nothing need be imagined."""
        return any((self.loss_scales.policy, self.loss_scales.value, self.loss_scales.repval))
