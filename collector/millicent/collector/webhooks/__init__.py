"""Telling endpoints of what happened."""
