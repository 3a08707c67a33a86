"""A learner that does not see the driver's disk, as on another host."""

import tempfile

from oneiros.platform.engine.learner import WorldModelLearner
from oneiros.platform.engine.transfer import Elsewhere, this_host


class FarLearner(WorldModelLearner):
    def elsewhere(self, directory):
        return Elsewhere(this_host(), tempfile.gettempdir())
