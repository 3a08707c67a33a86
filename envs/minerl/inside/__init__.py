"""What runs in MineRL's own Python (3.8 to 3.11): nothing of Oneiros is imported there, nor anything that it needs."""
