"""Attacks on detectors: changed texts, generators trained against a detector, and detectors hardened by both."""
