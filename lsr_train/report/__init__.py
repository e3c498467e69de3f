"""Shows runs side by side on one HTML page."""
