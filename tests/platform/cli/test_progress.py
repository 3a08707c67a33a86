import io
import signal

import pytest
from oneiros.platform.cli.drive import Every
from oneiros.platform.cli.interruption import Interruption
from oneiros.platform.cli.output import duration
from oneiros.platform.cli.progress import Bar, Lines, TimeLeft, display
from rich.console import Console


def test_time_left_follows_the_speed_of_the_last_half_minute():
    left = TimeLeft(10_000)
    assert left.update(0, now=0.0) is None
    assert left.update(1_000, now=1.0) == pytest.approx(9.0)
    for second in range(2, 62):
        estimate = left.update(1_000 + 10 * second, now=float(second))
    assert estimate == pytest.approx((10_000 - 1_610) / 10, rel=0.01)
    assert left.update(20_000, now=63.0) == 0


def test_a_terminal_gets_a_bar_and_anything_else_lines():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=140)
    with display(terminal, 1_000) as bar:
        bar.update(500, {"return": 21.25, "updates_per_s": 3.5, "train_ratio": 64.2})
    shown = terminal.file.getvalue()
    assert isinstance(bar, Bar)
    assert all(part in shown for part in ("500/1,000 steps", "50%", "return 21.2", "3.5 updates/s", "train ratio 64"))

    plain = Console(file=io.StringIO(), width=140)
    with display(plain, 1_000) as lines:
        for steps in range(0, 1_001, 100):
            lines.update(steps, {"return": 1.0} if steps == 100 else {})
    assert isinstance(lines, Lines)
    first, last = plain.file.getvalue().splitlines()
    assert first == "0/1,000 steps" and last.startswith("1,000/1,000 steps  return 1.0") and "0:00 left" in last


def test_things_are_due_by_steps_however_large_the_strides():
    due = Every(None, 100, at=0)
    assert [steps for steps in (50, 99, 130, 180, 250, 450, 460) if due.due(steps)] == [130, 250, 450]
    assert not Every(None, None, at=0).due(10**9)
    assert Every(1e-9, None, at=0).due(0)


def test_durations_read_like_a_clock():
    assert [duration(s) for s in (0, 9.9, 75, 3675, 90_000)] == ["0:00", "0:09", "1:15", "1:01:15", "25:00:00"]


def test_a_forked_process_is_ended_by_sigterm_and_not_by_ctrl_c():
    import os

    with Interruption(lambda text: None) as interruption:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
    assert interruption.signal is None
