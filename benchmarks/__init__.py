"""Speed, memory, storage and quality, each against a peer or a physical limit. Not part of the package."""
