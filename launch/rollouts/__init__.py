"""What `launch.rollout` is made of: its flags, and the agent and the human that they name."""
