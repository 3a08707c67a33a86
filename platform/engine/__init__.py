"""RLlib around the training core: configs, algorithms, env runners and learners."""
