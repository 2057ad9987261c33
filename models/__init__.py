"""Networks, their sharding, loading and saving; knows arrays and meshes, nothing of RL or dialogues.

Axis letters used in names, einsums and docstrings: B rows, T query tokens, S key slots, L layers, D model, F mlp,
N query heads, G key/value heads, R query heads a key/value head (N = G R), H head size, V vocabulary.
"""
