"""Commands: `python -m launch.NAME`. Each is argv, files, logs and devices around the packages below."""
