"""Whether two agents are the same, bit for bit."""

import torch


def assert_same_tensors(one, other):
    """Two state dicts are equal; else says which tensor is not."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
