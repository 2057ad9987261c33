"""Ours against a peer, alternately, on the same weights and inputs."""
