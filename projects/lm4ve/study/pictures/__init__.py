"""A user's labelled pictures, or a config's samples, and their splits."""
