"""click commands and rendering; no logic."""
