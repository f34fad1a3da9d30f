"""Detectors: from cached features to scores, calibrated on human texts."""
