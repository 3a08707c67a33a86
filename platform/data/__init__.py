"""Episodes as data sets: out of a run's replay; in from files, as plain npz, in Minari's format, or MineRL's."""

from oneiros.platform.data.data_set import DataSet, open_data
from oneiros.platform.data.episode import DataError, Episode
from oneiros.platform.data.filling import Filled, fill

__all__ = ["DataError", "DataSet", "Episode", "Filled", "fill", "open_data"]
