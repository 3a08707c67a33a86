"""What ``oneiros bench`` measures: the update, acting, the replay, training end to end, and how each of them grows."""
