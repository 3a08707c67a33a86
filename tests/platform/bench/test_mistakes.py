"""A mistake on the command line is one sentence that names the choices, and exit code 2."""

import pytest


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("update", "--size", "3m"), "'1m', '12m'"),
        (("update", "--obs", "sound"), "choose from image, state"),
        (("update", "--device", "tpu"), "auto, cpu, cuda or cuda:N"),
        (("update", "--device", "cuda:77"), "cuda:77"),
        (("update", "--precision", "float16"), "'float32' or 'bfloat16'"),
        (("update", "--compile", "maybe"), "'on' or 'off'"),
        (("update", "--set", "nope=1"), "nope is not a setting"),
        (("update", "--set", "deter"), "--set takes key=value"),
        (("update", "--updates", "0"), "--updates"),
        (("update", "--batch-length", "1"), "--batch-length"),
        (("update", "--replay-rows", "100", "--compile", "off"), "replay_rows is 100"),
        (("update", "--profile", "/nowhere/at/all/trace.json"), "--profile"),
        (("act", "--envs", "0"), "--envs"),
        (("act", "--size", "3m"), "'1m', '12m'"),
        (("replay", "--rows", "200"), "rows is 200"),
        (("replay", "--size", "3m"), "1m"),
        (("replay", "--obs", "sound"), "choose from image, state"),
        (("train", "--engine", "spark"), "engine"),
        (("train", "--runners", "2"), "num_runners"),
        (("train", "--obs", "sound"), "choose from image, state"),
        (("growth", "width"), "batch_size"),
        (("growth", "envs", "many"), "whole numbers"),
        ((), "--against rllib"),
        (("--against", "dopamine"), "it must be rllib"),
        (("--against", "rllib", "act"), "--against before 'act'"),
        (("--threads", "2", "act"), "options of 'act' follow it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_one_sentence(bench, words, says):
    code, result, _, err = bench(*words)
    assert code == 2
    assert result is None
    assert says in err
    assert err.startswith("oneiros: ") and err.count("\n") == 1
