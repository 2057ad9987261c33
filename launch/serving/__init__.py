"""The chat server: `config` (flags), `loading` (model to engine), `asked` (a request), `reply` (its text), `app`."""
