"""Backups: one file that holds the database, and every file that its rows name."""
