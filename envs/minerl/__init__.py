"""MineRL 0.4.4 (Minecraft 1.11.2), which lives in a process and a virtual environment of its own."""
