"""Tests of variant scores."""
