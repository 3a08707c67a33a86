"""What every model here is built of: layers, distributions, the optimiser, captured updates."""
