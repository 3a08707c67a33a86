"""The training loop without Ray: ratio, learner core, and the one-process engine."""
