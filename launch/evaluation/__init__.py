"""What `launch.evaluate` is made of: flags, inputs, the collected numbers, text and page."""
