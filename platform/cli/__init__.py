"""The command line: ``oneiros train``, ``evaluate``, ``resume`` and what helps with them."""
