"""Looking at dialogues and training rows: one page that opens from the disk, or text in a terminal."""
