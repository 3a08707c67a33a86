"""Messages: what is sent is read by those who may, when they may, and counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oneiros.algorithms.belief.channel import Channel
from oneiros.algorithms.belief.config import ChannelSettings

NAMES = ("ann", "bob", "cat")


def channel(**settings: Any) -> Channel:
    return Channel(ChannelSettings(**{"tokens": 2, "vocabulary": 4, **settings}), NAMES, torch.device("cpu"))


def messages(channel: Channel, seed: int = 0) -> torch.Tensor:
    return channel.compose(torch.randn(5, 3, channel.width, generator=torch.Generator().manual_seed(seed)), None)


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_a_message_is_read_after_the_delay_by_everyone_but_its_sender(delay: int) -> None:
    c = channel(delay=delay)
    sent, traffic = messages(c), c.quiet(5)
    for step in range(delay + 1):
        heard = c.deliver(traffic).view(5, 3, 3, c.width)
        for listener in range(3):
            for sender in range(3):
                expected = sent[:, sender] if step == delay and listener != sender else torch.zeros_like(sent[:, 0])
                assert torch.equal(heard[:, listener, sender], expected)
        speaks = torch.full((5, 3), float(step == 0))
        traffic, _ = c.send(traffic, sent, speaks, None)


def test_lost_messages_are_paid_for_and_not_read() -> None:
    c = channel(drop_rate=0.5)
    lost = torch.tensor([0.2, 0.7, 0.49]).expand(5, 3)
    traffic, spoke = c.send(c.quiet(5), messages(c), torch.ones(5, 3), lost)
    assert torch.equal(traffic.bits, torch.full((5, 3), 4.0)) and bool(spoke.all())
    assert torch.equal(traffic.under_way[:, 0].abs().sum(-1) > 0, torch.tensor([False, True, False]).expand(5, 3))


def test_the_budget_is_never_exceeded() -> None:
    c = channel(bit_budget=9.0)
    traffic = c.quiet(5)
    for _ in range(5):
        traffic, _ = c.send(traffic, messages(c), torch.ones(5, 3), None)
    assert torch.equal(traffic.bits, torch.full((5, 3), 8.0))
    traffic = c.reset(traffic, torch.tensor([True, False, False, False, False]))
    assert traffic.bits[:, 0].tolist() == [0, 8, 8, 8, 8]


def test_only_named_listeners_read() -> None:
    c = channel(listeners={"ann": ["cat"]})
    traffic, _ = c.send(c.quiet(5), messages(c), torch.ones(5, 3), None)
    heard = c.deliver(traffic).view(5, 3, 3, -1).abs().sum((0, 3)) > 0
    assert heard.nonzero().tolist() == [[2, 0]]
    with pytest.raises(ValueError, match="'dog'; there are ann, bob, cat"):
        channel(listeners={"dog": ["cat"]})


def test_what_is_stored_is_what_was_under_way() -> None:
    c = channel(delay=2)
    traffic, _ = c.send(c.quiet(5), messages(c), torch.tensor([1.0, 0.0, 1.0]).expand(5, 3), None)
    assert torch.equal(c.unpack(c.pack(traffic.under_way)), traffic.under_way)


def test_listeners_teach_speakers_through_the_tokens() -> None:
    c = channel()
    logits = torch.randn(5, 3, c.width, requires_grad=True)
    message = c.compose(logits, torch.rand(5, 3, 2))
    assert torch.equal(message.detach().view(5, 3, 2, 4).sum(-1), torch.ones(5, 3, 2))
    traffic, _ = c.send(c.quiet(5), message, torch.ones(5, 3), None)
    (c.deliver(traffic)[:, 1] * torch.randn(3 * c.width)).sum().backward()
    assert logits.grad is not None
    assert float(logits.grad[:, 0].abs().sum()) > 0 and float(logits.grad[:, 1].abs().sum()) == 0


def test_a_shuffled_channel_carries_tokens_that_say_nothing_and_cost_the_same() -> None:
    c = channel(shuffled=True)
    sent = c.compose(torch.randn(1, 3, c.width), None).expand(4000, -1, -1)
    turned = torch.rand(4000, 3, 2, generator=torch.Generator().manual_seed(0))
    traffic, _ = c.send(c.quiet(4000), sent, torch.ones(4000, 3), None, turned)
    arrived = traffic.under_way[:, 0].view(4000, 3, 2, 4)
    assert torch.equal(arrived.sum(-1), torch.ones(4000, 3, 2)) and float(traffic.bits[0, 0]) == 4
    # One and the same message arrives as any of the four tokens, equally often.
    assert float((arrived.mean(0) - 0.25).abs().max()) < 0.03
    plain, _ = c.send(c.quiet(4000), sent, torch.ones(4000, 3), None, torch.zeros(4000, 3, 2))
    assert torch.equal(plain.under_way[:, 0], sent), "the control: turned by nothing, it is what was sent"
