"""Simulated annotators: named characters, and a walker that takes them through the real pages over HTTP."""
