"""ColBench as a dataset of tensorflow_datasets, `colbench`, in array_record files; TensorFlow itself is not needed.

The only part of colbench_env that imports tensorflow_datasets.
"""

from .builder import Colbench, TfdsRows, find_files, prepare

__all__ = ["Colbench", "TfdsRows", "find_files", "prepare"]
