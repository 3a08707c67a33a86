"""The protocol of the diamond task, which its worlds share: actions, milestones, rewards, observations."""
