"""Which state the learners go back to."""

from types import SimpleNamespace

import pytest
from gymnasium import spaces
from oneiros.platform.checkpoint import Description, write_checkpoint
from oneiros.platform.engine.learner_calls import LearnerDied
from oneiros.platform.engine.supervisor import Supervisor


def write(directory):
    (directory / "state").write_text("something")
    return Description("linear", {"env_steps": 1}, {}, spaces.Discrete(2), spaces.Discrete(2), {})


@pytest.fixture
def supervisor(tmp_path):
    config = SimpleNamespace(recovery_directory=str(tmp_path / "recovery"), recovery_interval_s=600.0)
    return Supervisor(config, write)


def test_a_checkpoint_that_was_removed_is_made_up_for(supervisor, tmp_path):
    """As Tune does, which copies what it was given and removes it."""
    assert supervisor.due
    supervisor.save(100)
    own = supervisor._newest
    assert not supervisor.due
    theirs = tmp_path / "theirs"
    write_checkpoint(theirs, write)
    supervisor.saved(theirs)
    assert not supervisor.due and supervisor._to_go_back_to(LearnerDied("it died"))[0] == theirs
    (theirs / "state").unlink()
    assert supervisor._to_go_back_to(LearnerDied("it died"))[0] == own
    theirs.rename(tmp_path / "elsewhere")
    assert supervisor.due and supervisor._to_go_back_to(LearnerDied("it died"))[0] == own


def test_what_an_earlier_run_left_is_neither_gone_back_to_nor_in_the_way(supervisor, tmp_path):
    supervisor.save(5_000)
    config = supervisor.config
    begun_anew = Supervisor(config, write)
    with pytest.raises(LearnerDied, match="no state was saved"):
        begun_anew._to_go_back_to(LearnerDied("it died"))
    begun_anew.save(0)
    assert begun_anew._to_go_back_to(LearnerDied("it died"))[0].name.endswith("-000000000000")
    assert len(list((tmp_path / "recovery").iterdir())) == 1


def test_where_nothing_can_be_used_both_reasons_are_told(supervisor):
    supervisor.save(100)
    (supervisor._newest / "state").unlink()
    with pytest.raises(LearnerDied, match=r"it died; and the state to go on from cannot be used: .*state"):
        supervisor._to_go_back_to(LearnerDied("it died"))
