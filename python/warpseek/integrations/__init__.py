"""Integrations with other frameworks; each module imports its own framework alone."""
