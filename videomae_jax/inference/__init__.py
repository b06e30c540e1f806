"""Trained models at work on videos: classes, features, reconstructions."""
