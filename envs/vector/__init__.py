"""Several copies of an environment stepped together, surviving what goes wrong in one of them."""
