"""What `launch.plan` is made of: network shapes, chips, FLOPs, collectives of a compiled program, the compilation."""
