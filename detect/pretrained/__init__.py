"""The detectors that ship: a folder each, with safetensors, JSON and a model card."""
