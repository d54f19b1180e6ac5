"""Tissue images, spots and counts to a cohort folder."""
