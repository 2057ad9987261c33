"""Frontend design: pages are rendered, looked at and compared. Playwright is imported when a Renderer is opened."""
