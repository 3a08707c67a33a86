"""What the agents believed, measured against what was so, and against what a simpler mind would have believed.

``N`` streams of ``T`` joint rows with their training-only keys, as a policy acted in them. All in nats, over the rows
in which the agent was there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from oneiros.algorithms.belief.channel import Traffic
from oneiros.algorithms.belief.seats import Columns, Component
from torch import Tensor

if TYPE_CHECKING:
    from oneiros.algorithms.belief.model import BeliefModel

BINS = 10
"""Of confidence, over which the expected calibration error is summed."""
Measures = dict[str, float]
Intended = Callable[[Tensor, Tensor | None], Tensor]
"""The policy's probabilities of actions ``(R, G, A)``, of features ``(R, G, F)`` and what is legal ``(R, G, D)``."""


@torch.no_grad()
def measure(model: BeliefModel, rows: Mapping[str, NDArray[Any]], intended: Intended) -> Measures:
    """All measures of rows ``(N, T, ...)``; see the functions below."""
    N, T = rows["is_first"].shape
    device = model.ids.device
    flat, feat, mind = remembered(model, rows)
    seats = model.seats
    alive = seats.flag(flat, "alive", device) > 0
    last = torch.from_numpy(rows["is_last"]).flatten().to(device)
    found: Measures = {}
    if model.zero is not None and seats.targets is not None:
        logits, truth = model.zero(mind), seats.truth(flat, device)
        found |= zero_order(seats.targets, logits, truth, alive, last)
        found |= oracles(seats.targets, logits, flat, truth, alive)
        if model.first is not None:
            found |= first_order(seats.targets, logits, model.first(feat).target, truth, alive)
    if model.first is not None:
        acts = (seats.acting(flat, device) > 0) & ~last[:, None]
        action = seats.flatten_action(flat, device)
        guess = model.first(feat).action
        if seats.actions.components:
            found |= intents(seats.actions, guess, action, acts, (N, T), rows)
            policy = intended(feat, seats.legal(flat, device))
            found |= intended_actions(seats.actions, guess, policy, acts, (N, T), rows)
    if model.channel.width:
        episodes = max(1, int(rows["is_last"].sum()))
        sent = torch.from_numpy(rows["latent/bits"])[torch.from_numpy(rows["is_last"])]
        for g, name in enumerate(seats.names):
            found[f"bits/{name}/an_episode"] = float(sent[:, g].sum()) / episodes
    return found


def zero_order(targets: Columns, logits: Tensor, truth: Tensor, alive: Tensor, last: Tensor) -> Measures:
    """Likelihood (NLL), Brier score, calibration error (ECE) and accuracy of each agent's beliefs about its targets.

    ``chance_nll`` is that of a uniform guess over all classes, one that says that there is nothing included;
    ``final_accuracy`` is over the last rows of episodes. Components of one target are averaged. ``logits`` and
    ``truth`` are ``(R, G, Z)``, ``alive`` ``(R, G)``, ``last`` ``(R,)``.
    """
    found: Measures = {}
    for g, key, component in _owned(targets):
        rows = alive[:, g]
        p = torch.softmax(logits[rows, g, component.columns], -1)
        y = truth[rows, g, component.columns]
        right = (p.argmax(-1) == y.argmax(-1)).float()
        each = {
            "nll": -(p.clamp(min=1e-12).log() * y).sum(-1).mean(),
            "brier": (p - y).square().sum(-1).mean(),
            "ece": calibration_error(p.amax(-1), right),
            "accuracy": right.mean(),
            "final_accuracy": right[last[rows]].mean() if bool(last[rows].any()) else torch.tensor(float("nan")),
            "chance_nll": torch.tensor(component.count).float().log(),
        }
        for name, value in each.items():
            _add(found, f"belief/{key}/{name}", float(value))
    return _averaged(found)


def calibration_error(confidence: Tensor, right: Tensor) -> Tensor:
    """How far confidence and accuracy lie apart, by bin of confidence, weighed by how many fall into it."""
    sure, hit, share = reliability(confidence, right).unbind(-1)
    return ((sure - hit).abs() * share).sum()


def reliability(confidence: Tensor, right: Tensor) -> Tensor:
    """Mean confidence, mean accuracy and share ``(BINS, 3)`` of the beliefs in each bin of confidence."""
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    inside = torch.nn.functional.one_hot(bins, BINS).to(confidence.dtype)
    counts = inside.sum(0)
    sums = torch.stack([confidence @ inside, right @ inside], -1)
    return torch.cat([sums / counts.clamp(min=1)[:, None], (counts / max(1, len(confidence)))[:, None]], -1)


@torch.no_grad()
def tables(model: BeliefModel, rows: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """``calibration/<agent>/<target>``: the ``reliability`` of its belief, all its components together."""
    seats = model.seats
    if model.zero is None or seats.targets is None:
        return {}
    flat, _, mind = remembered(model, rows)
    alive = seats.flag(flat, "alive", mind.device) > 0
    logits, truth = model.zero(mind), seats.truth(flat, mind.device)
    sure: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for g, key, c in _owned(seats.targets):
        p = torch.softmax(logits[alive[:, g], g, c.columns], -1)
        right = (p.argmax(-1) == truth[alive[:, g], g, c.columns].argmax(-1)).to(p.dtype)
        sure.setdefault(key, []).append((p.amax(-1), right))
    drawn = {}
    for key, parts in sure.items():
        confidence, right = (torch.cat(part) for part in zip(*parts, strict=True))
        drawn[f"calibration/{key}"] = reliability(confidence, right).cpu().double().numpy()
    return drawn


def remembered(model: BeliefModel, rows: Mapping[str, NDArray[Any]]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Rows ``(N, T, ...)`` one after another ``(R, ...)``, the features ``(R, G, F)`` that were acted by, and what the
    beliefs about targets read (``BeliefModel.mind``)."""
    device = model.ids.device
    flat = {k: torch.from_numpy(np.ascontiguousarray(v)).flatten(0, 1) for k, v in rows.items()}
    deter = flat["latent/deter"].to(device).float()
    feat = model.feat(deter, model.rssm.unpack(flat["latent/stoch"].to(device), torch.float32))
    if model.config.zero_order_reads == "sample":
        return flat, feat, feat
    return flat, feat, model.mind(feat, model.posterior(deter, _perceived(model, flat, rows["is_first"].shape)))


def _perceived(model: BeliefModel, flat: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """All that came in ``(R, G, hidden)`` with rows ``shape``: what was seen, and what was heard."""
    seats, channel, device = model.seats, model.channel, model.ids.device
    alive, acting = seats.flag(flat, "alive", device), seats.acting(flat, device)
    tokens = model.encode(seats.see(flat, device), seats.images(flat, device), alive, acting)
    if model.heard is None:
        return tokens
    # A row has the messages under way after it; those that arrived with it are under way in the row before.
    after = channel.unpack(flat["latent/messages"].to(device)).view(*shape, *channel.quiet(1).under_way.shape[1:])
    before = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], 1).flatten(0, 1)
    traffic = channel.reset(Traffic(before, torch.zeros_like(alive)), flat["is_first"].to(device))
    heard: Tensor = model.heard(channel.deliver(traffic))
    return tokens + heard


def first_order(targets: Columns, own: Tensor, about: Tensor, truth: Tensor, alive: Tensor) -> Measures:
    """Likelihood of the partner's actual belief under what an agent believes of it.

    ``nll`` is the cross-entropy of j's belief with i's belief about it, ``copy_nll`` with i's own belief, which whoever
    does not model a mind would offer instead. ``floor`` is the entropy of j's belief: nothing can be below.
    ``false_belief/...`` is the same where j is wrong and i is right, ``false_belief/share`` how often that is.
    ``about`` is ``(R, G, G, Z)``.
    """
    found: Measures = {}
    for i, key_i, c in _owned(targets):
        for j, key_j, other in _owned(targets):
            if i == j or other.start != c.start:
                continue
            rows = alive[:, i] & alive[:, j]
            mine, theirs, guess = (
                torch.log_softmax(x[..., c.columns], -1) for x in (own[rows, i], own[rows, j], about[rows, i, j])
            )
            p = theirs.exp()
            nll, copied, floor = (-(p * x).sum(-1) for x in (guess, mine, theirs))
            y_i, y_j = truth[rows, i, c.columns].argmax(-1), truth[rows, j, c.columns].argmax(-1)
            false = (theirs.argmax(-1) != y_j) & (mine.argmax(-1) == y_i) & (y_i == y_j)
            name = f"first_order/{key_i}_about_{key_j.split('/')[0]}"
            each = {"nll": nll, "copy_nll": copied, "floor": floor}
            for what, value in each.items():
                _add(found, f"{name}/{what}", float(value.mean()))
                if bool(false.any()):
                    _add(found, f"{name}/false_belief/{what}", float(value[false].mean()))
            _add(found, f"{name}/false_belief/share", float(false.float().mean()))
    return _averaged(found)


def intents(
    actions: Columns, guess: Tensor, action: Tensor, acts: Tensor, shape: tuple[int, int], rows: Mapping[str, Any]
) -> Measures:
    """How often i's likeliest action of j is the one j takes, against j's commonest action and j's last one.

    ``guess`` is ``(R, G, G, A)``, ``action`` ``(R, G, A)``, ``acts`` ``(R, G)``; discrete components only.
    """
    found: Measures = {}
    first = torch.from_numpy(np.asarray(rows["is_first"]))
    for j, key_j, c in _owned(actions):
        taken = action[:, j, c.columns].argmax(-1).view(shape)
        executed = acts[:, j].view(shape)
        remembered = last_action(taken, executed, first.to(taken.device))
        commonest = torch.bincount(taken[executed], minlength=c.count).argmax() if bool(executed.any()) else 0
        partner = key_j.split("/")[0]
        for i, name in enumerate(actions.names):
            if i == j or not bool(executed.any()):
                continue
            predicted = guess[:, i, j, c.columns].argmax(-1).view(shape)
            each = {
                "accuracy": predicted == taken,
                "marginal_accuracy": taken == commonest,
                "last_action_accuracy": remembered == taken,
            }
            for what, hit in each.items():
                _add(found, f"intent/{name}_about_{partner}/{what}", float(hit[executed].float().mean()))
    return _averaged(found)


def intended_actions(
    actions: Columns, guess: Tensor, policy: Tensor, acts: Tensor, shape: tuple[int, int], rows: Mapping[str, Any]
) -> Measures:
    """The same against the policy that j acts by, whose probabilities are ``policy`` ``(R, G, A)``.

    ``intent/.../policy/nll`` is the cross-entropy of j's policy with i's belief about it; ``floor`` is the policy's own
    entropy, ``marginal_nll`` what the best belief gives that never changes. ``accuracy`` and the two it is compared
    with are those of actions sampled from the policy in these rows, ``best_accuracy`` is of whoever knows the policy.
    """
    found: Measures = {}
    first = torch.from_numpy(np.asarray(rows["is_first"]))
    for j, key_j, c in _owned(actions):
        executed = acts[:, j]
        if not bool(executed.any()):
            continue
        p = policy[:, j, c.columns]
        habit = p[executed].mean(0)
        # Acting again as in a draw from the policy where it acted last; nothing where it has not acted yet.
        index = torch.arange(len(p), device=p.device).view(shape)
        before = last_action(index, executed.view(shape), first.to(p.device)).flatten()
        again = (p[before.clamp(min=0)] * p).sum(-1) * (before >= 0)
        partner = key_j.split("/")[0]
        for i, name in enumerate(actions.names):
            if i == j:
                continue
            believed = torch.log_softmax(guess[:, i, j, c.columns], -1)
            each = {
                "nll": -(p * believed).sum(-1),
                "floor": -(p * p.clamp(min=1e-12).log()).sum(-1),
                "marginal_nll": -(p * habit.clamp(min=1e-12).log()).sum(-1),
                "accuracy": p.gather(-1, believed.argmax(-1, keepdim=True))[..., 0],
                "marginal_accuracy": p[:, habit.argmax()],
                "last_action_accuracy": again,
                "best_accuracy": p.amax(-1),
            }
            for what, value in each.items():
                _add(found, f"intent/{name}_about_{partner}/policy/{what}", float(value[executed].mean()))
    return _averaged(found)


def last_action(taken: Tensor, executed: Tensor, first: Tensor) -> Tensor:
    """The action ``(N, T)`` that was executed last before each row, -1 where none was in its episode."""
    out = torch.full_like(taken, -1)
    carried = torch.full_like(taken[:, 0], -1)
    for t in range(taken.shape[1]):
        carried = torch.where(first[:, t], -1, carried)
        out[:, t] = carried
        carried = torch.where(executed[:, t], taken[:, t], carried)
    return out


def oracles(targets: Columns, logits: Tensor, flat: Mapping[str, Tensor], truth: Tensor, alive: Tensor) -> Measures:
    """The likelihood that exact inference would reach, and what an agent lacks of it, where the environment knows it.

    ``oracle_kl`` is how far the belief is from the exact posterior: what ``nll`` exceeds ``oracle_nll`` by on average,
    without the luck of what happened to be so. ``logits`` and ``truth`` are ``(R, G, Z)``, ``alive`` ``(R, G)``.
    """
    found: Measures = {}
    for g, name in enumerate(targets.names):
        for key in targets.own[name]:
            exact = flat.get(f"training/{name}/oracle/{key}")
            if exact is None:
                continue
            rows = alive[:, g]
            place = targets.places[targets.kind[name]][key]
            shape = (int(rows.sum()), *exact.shape[1:])
            y, believed = truth[rows, g, place].view(shape), torch.log_softmax(logits[rows, g, place].view(shape), -1)
            p = exact.to(truth.device)[rows]
            sure = p.clamp(min=1e-12).log()
            found[f"belief/{name}/{key}/oracle_nll"] = float(-(sure * y).sum(-1).mean())
            found[f"belief/{name}/{key}/oracle_kl"] = float((p * (sure - believed)).sum(-1).mean())
    return found


def _owned(columns: Columns) -> list[tuple[int, str, Component]]:
    """Every agent's components, with ``agent/key``."""
    found = []
    for g, name in enumerate(columns.names):
        for key, place in columns.places[columns.kind[name]].items():
            for c in columns.components:
                if c.owners[g] and place.start <= c.start < place.stop:
                    found.append((g, f"{name}/{key}".rstrip("/"), c))
    return found


def _add(found: Measures, name: str, value: float) -> None:
    if np.isfinite(value):
        found[name] = found.get(name, 0.0) + value
        found[f"#{name}"] = found.get(f"#{name}", 0.0) + 1.0


def _averaged(found: Measures) -> Measures:
    return {name: value / found[f"#{name}"] for name, value in found.items() if not name.startswith("#")}
