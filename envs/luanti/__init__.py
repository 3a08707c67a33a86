"""A Minecraft-like survival world in the Luanti engine (not Minecraft)."""
