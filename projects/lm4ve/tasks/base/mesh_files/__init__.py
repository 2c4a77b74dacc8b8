"""Readers of mesh files, which several tasks use; they need numpy alone."""
