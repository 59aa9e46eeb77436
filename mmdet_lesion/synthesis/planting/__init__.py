"""Lesions of real shape in real scans, with complete truth."""
