"""Experiment trackers: what a run reports goes to Weights & Biases, MLflow and Trackio as well.

`trackers` keeps them in step with the run directory, which is the truth; `tracker` is what each of them has to do.
"""
