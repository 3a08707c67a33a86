"""Maps the three top-level rooms to ``oneiros.*``: a path is an import name without its first word."""

from setuptools import find_packages, setup

ROOMS = ("platform", "algorithms", "envs")

packages = [name for room in ROOMS for name in [room, *(f"{room}.{sub}" for sub in find_packages(room))]]
setup(
    packages=[f"oneiros.{name}" for name in packages],
    package_dir={f"oneiros.{name}": name.replace(".", "/") for name in packages},
)
