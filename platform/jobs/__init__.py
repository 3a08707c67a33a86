"""Jobs on a Ray cluster: what is shipped with one, how it is submitted and watched, and sweeps of many trainings."""
