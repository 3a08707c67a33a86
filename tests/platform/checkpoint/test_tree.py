import pickle

import numpy as np
import pytest
import torch
from oneiros.platform.checkpoint import CheckpointError, read_tree, write_tree


def test_everything_comes_back_as_it_was(tmp_path):
    base = torch.randn(4, 4)
    tree = {
        "tensor": base,
        "view": base[1:, ::2],
        "bf16": torch.randn(3).bfloat16(),
        "scalar": torch.tensor(7),
        "numpy": {
            "u8": np.arange(6, dtype=np.uint8).reshape(2, 3),
            "bool": np.array([True, False]),
            "0d": np.float32(0.5),
        },
        "empty": np.zeros((0, 3), np.float16),
        "big": 2**127 + 1,
        "floats": [1.5, float("inf"), float("-inf")],
        "tuple": (1, "two", None, True),
        "bytes": b"\x00\xff",
        "no_bytes": b"",
        3: {"integer keys": [1]},
    }
    write_tree(tmp_path / "state", tree)
    back = read_tree(tmp_path / "state")
    assert torch.equal(back["tensor"], base) and torch.equal(back["view"], base[1:, ::2])
    assert back["bf16"].dtype == torch.bfloat16 and torch.equal(back["bf16"], tree["bf16"])
    assert back["scalar"].shape == () and back["scalar"] == 7
    np.testing.assert_array_equal(back["numpy"]["u8"], tree["numpy"]["u8"])
    assert back["numpy"]["bool"].dtype == np.bool_ and back["numpy"]["0d"] == np.float32(0.5)
    assert back["empty"].shape == (0, 3) and back["empty"].dtype == np.float16
    for key in ("big", "floats", "tuple", "bytes", "no_bytes", 3):
        assert back[key] == tree[key]


def test_what_only_pickle_could_hold_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="'/env/callback' is a function"):
        write_tree(tmp_path / "state", {"env": {"callback": lambda: None}})
    with pytest.raises(CheckpointError, match="'/objects' is an array of object"):
        write_tree(tmp_path / "state", {"objects": np.array([object()])})


def test_a_pickle_in_place_of_the_tensors_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'exploded')!r}, 'w')",))

    write_tree(tmp_path / "state", {"a": torch.zeros(1)})
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"state{suffix}").write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_tree(tmp_path / "state")
    assert not (tmp_path / "exploded").exists()
