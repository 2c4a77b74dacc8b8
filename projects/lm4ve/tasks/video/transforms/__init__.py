"""Transforms of videos: augmentation, and the views of a test."""
