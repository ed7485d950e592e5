"""Hostile requests, by what they attack."""
