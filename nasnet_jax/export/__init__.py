"""Weights to and from other frameworks. Each is imported where it is used."""
