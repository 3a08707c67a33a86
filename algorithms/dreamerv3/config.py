"""DreamerV3's hyperparameters: one set for every domain, and the model sizes of the paper."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SIZES: dict[str, dict[str, int]] = {
    "1m": {"deter": 512, "hidden": 64, "classes": 4, "depth": 4, "units": 64},
    "12m": {"deter": 2048, "hidden": 256, "classes": 16, "depth": 16, "units": 256},
    "25m": {"deter": 3072, "hidden": 384, "classes": 24, "depth": 24, "units": 384},
    "50m": {"deter": 4096, "hidden": 512, "classes": 32, "depth": 32, "units": 512},
    "100m": {"deter": 6144, "hidden": 768, "classes": 48, "depth": 48, "units": 768},
    "200m": {"deter": 8192, "hidden": 1024, "classes": 64, "depth": 64, "units": 1024},
    "400m": {"deter": 12288, "hidden": 1536, "classes": 96, "depth": 96, "units": 1536},
}


class LossScales(BaseModel):
    """Weights of the losses in the total."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rec: float = Field(default=1.0, ge=0, description="reconstruction of every observation key")
    rew: float = Field(default=1.0, ge=0, description="reward")
    con: float = Field(default=1.0, ge=0, description="continuation")
    dyn: float = Field(default=1.0, ge=0, description="prior towards posterior")
    rep: float = Field(default=0.1, ge=0, description="posterior towards prior")
    policy: float = Field(default=1.0, ge=0, description="actor")
    value: float = Field(default=1.0, ge=0, description="critic on imagined returns")
    repval: float = Field(default=0.3, ge=0, description="critic on replayed returns")


class Hyperparameters(BaseModel):
    """What may be set about the agent; the defaults are the Nature 2025 version's, except the size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Literal["1m", "12m", "25m", "50m", "100m", "200m", "400m"] = Field("12m", description="model size")
    deter: int | None = Field(None, ge=8, description="deterministic width; the size's own if unset; a multiple of 8")
    hidden: int | None = Field(None, ge=4, description="width of the recurrent model's layers; the size's own if unset")
    groups: int = Field(32, ge=1, description="number of categorical latents")
    latent: Literal["categorical", "gaussian"] = Field(
        "categorical", description="kind of latents; gaussian is the first Dreamer's, of `groups` dimensions"
    )
    classes: int | None = Field(None, ge=2, le=256, description="classes of each latent; the size's own if unset")
    depth: int | None = Field(
        None, ge=2, description="base channels of the convolutions; the size's own if unset; even"
    )
    units: int | None = Field(None, ge=4, description="width of encoder, decoder and heads; the size's own if unset")
    encoder_layers: int = Field(3, ge=1, description="layers of the vector encoder")
    decoder_layers: int = Field(3, ge=1, description="layers of the vector decoder")
    reward_layers: int = Field(1, ge=1, description="layers of the reward head")
    continue_layers: int = Field(1, ge=1, description="layers of the continuation head")
    actor_layers: int = Field(3, ge=1, description="layers of the actor")
    critic_layers: int = Field(3, ge=1, description="layers of the critic")
    bins: int = Field(255, ge=3, description="bins of the two-hot reward and critic; odd")

    batch_size: int = Field(16, ge=1, description="sequences in a batch")
    batch_length: int = Field(64, ge=2, description="trained steps in a sequence")
    replay_context: int = Field(1, ge=0, le=1, description="steps before a sequence whose stored latent it starts from")

    unimix: float = Field(0.01, ge=0, lt=1, description="share of uniform in latent distributions")
    actor_unimix: float = Field(0.01, ge=0, lt=1, description="share of uniform in discrete actors")
    free_nats: float = Field(1.0, ge=0, description="nats under which the KL terms are not reduced")
    loss_scales: LossScales = Field(default_factory=LossScales)

    horizon: int = Field(333, ge=2, description="steps; the discount is 1 - 1 / horizon")
    imagination_length: int = Field(15, ge=1, description="imagined steps from every replayed state")
    imagination_starts: int | None = Field(
        None, ge=2, description="imagine only from the last so many states of each sequence; from all if unset"
    )
    lam: float = Field(0.95, ge=0, le=1, description="lambda of the returns")
    actor_gradient: Literal["reinforce", "dynamics"] = Field(
        "reinforce", description="how the actor learns; dynamics: by the returns' gradient through the imagined steps"
    )
    entropy: float = Field(3e-4, ge=0, description="weight of the actor's entropy")
    return_rate: float = Field(0.01, gt=0, le=1, description="rate of the return percentiles")
    slow_rate: float = Field(0.02, gt=0, le=1, description="rate at which the slow critic follows, each update")
    slow_regulariser: float = Field(1.0, ge=0, description="weight of the critic's loss towards the slow critic")
    reward_gradient: bool = Field(True, description="whether the reward head's gradient reaches the world model")
    replay_value_gradient: bool = Field(
        True, description="whether the replay critic's gradient reaches the world model"
    )

    learning_rate: float = Field(4e-5, gt=0, description="after warm-up")
    warmup: int = Field(1000, ge=0, description="updates of linear warm-up")
    anneal: int = Field(0, ge=0, description="updates after which the rate has fallen linearly to a tenth; 0 for never")
    clip: float = Field(0.3, ge=0, description="adaptive gradient clipping; 0 for none")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    eps: float = Field(1e-20, gt=0)

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="compute dtype; auto: bfloat16 on CUDA and on CPUs with bfloat16 matrix units"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "off", description="torch.compile of small pieces; auto: where the compiler is there (C++, or Triton on CUDA)"
    )
    cuda_graph: bool = Field(True, description="capture the whole update on CUDA")

    @model_validator(mode="after")
    def _divisible(self) -> Hyperparameters:
        if self.bins % 2 == 0:
            raise ValueError(f"bins must be odd, so that one bin is exactly zero, but it is {self.bins}.")
        if self.width("deter") % 8:
            raise ValueError(f"deter must be a multiple of 8 (the blocks of the GRU), but it is {self.deter}.")
        if self.width("depth") % 2:
            raise ValueError(f"depth must be even (8 decoder blocks share 4 x depth channels), but it is {self.depth}.")
        if 0 < self.anneal <= self.warmup:
            raise ValueError(f"anneal ({self.anneal}) must lie beyond warmup ({self.warmup}), or be 0.")
        return self

    def width(self, name: str) -> int:
        """The width called ``name``: what was set, else the size's own."""
        own = getattr(self, name)
        return SIZES[self.size][name] if own is None else int(own)
