"""Open-loop prediction: filter the first half of a sequence, imagine the second, and compare."""

from __future__ import annotations

import torch
from oneiros.algorithms.contract import Tensors
from oneiros.algorithms.dreamerv3.rssm import Latents
from oneiros.algorithms.dreamerv3.world_model import WorldModel
from torch import Tensor

OBSERVED, IMAGINED = (0, 200, 0), (220, 0, 0)
SEQUENCES, BORDER = 6, 2


@torch.no_grad()
def open_loop(model: WorldModel, rows: Tensors, generator: torch.Generator) -> Tensors:
    """Videos and errors of prepared rows (``DreamerV3.prepare``).

    For every image key ``"openloop/<key>"`` is ``(T, 3 h, B w, C)`` uint8: truth, model and error above each other for
    up to six sequences, bordered green while observed and red while imagined. For every key
    ``"openloop/<key>/observed"`` and ``".../imagined"`` are mean squared errors (symlog units for vectors).
    """
    T, B = rows["is_first"].shape
    half, n = T // 2, min(SEQUENCES, B)
    rssm, device = model.rssm, rows["is_first"].device
    obs = {
        k: rows[k].view(T, B, *rows[k].shape[1:])[:, :n] for k in (*model.encoder.vectors, *model.encoder.images.keys)
    }
    first_half = {k: v[:half].flatten(0, 1) for k, v in obs.items()}
    tokens = model.encoder(first_half, torch.float32).view(half, n, -1)
    uniform = torch.rand(T, n, rssm.groups, generator=generator, device=device)
    start = Latents(rows["deter"][:n].float(), rows["stoch"][:n].float())
    action = rows["prev_action"][:, :n]
    observed, _ = rssm.observe(tokens, action[:half], rows["is_first"][:half, :n], start, uniform[:half])
    feats = [observed.feat]
    deter, stoch = observed.deter[-1], observed.stoch[-1]
    for t in range(half, T):
        deter, stoch = rssm.imagine_step(deter, stoch, action[t], uniform[t])
        feats.append(torch.cat([deter, stoch], -1)[None])
    feat = torch.cat(feats).flatten(0, 1)

    report: Tensors = {}
    losses = model.decoder.losses(feat, {k: v.flatten(0, 1) for k, v in obs.items()})
    for key, loss in losses.items():
        each = loss.view(T, n) / max(1, obs[key][0, 0].numel())
        report[f"openloop/{key}/observed"] = each[:half].mean()
        report[f"openloop/{key}/imagined"] = each[half:].mean()
    predicted = model.decoder.predict(feat)
    for key in model.encoder.images.keys:
        truth = obs[key]
        report[f"openloop/{key}"] = _video(truth, predicted[key].view(truth.shape), half)
    return report


def _video(truth: Tensor, model: Tensor, half: int) -> Tensor:
    """Stack ``(T, n, h, w, C)`` truth, model and error into ``(T, 3 h, n w, 3)`` with borders."""
    error = ((model.int() - truth.int() + 255) // 2).to(torch.uint8)
    columns = torch.cat([truth, model, error], 2)
    T, n, h, w, C = columns.shape
    if C != 3:  # more channels than a picture has: show the first, as grey
        columns = columns[..., :1].expand(T, n, h, w, 3)
    framed = torch.zeros(T, n, h + 2 * BORDER, w + 2 * BORDER, 3, dtype=torch.uint8, device=truth.device)
    framed[:half] = torch.tensor(OBSERVED, dtype=torch.uint8, device=truth.device)
    framed[half:] = torch.tensor(IMAGINED, dtype=torch.uint8, device=truth.device)
    framed[:, :, BORDER:-BORDER, BORDER:-BORDER] = columns
    return framed.permute(0, 2, 1, 3, 4).reshape(T, h + 2 * BORDER, n * (w + 2 * BORDER), 3)
