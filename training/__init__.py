"""What soft labels buy: train on a release, beside hard labels, and report.

Needs neither Django nor Celery: a release, an image archive and torch.
"""
