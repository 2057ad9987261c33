"""SWEET-RL in JAX: token rows, losses, critic, sampler and training loop; imports `models`, never `launch`."""
