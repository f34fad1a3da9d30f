"""What a person runs: the command line, corpora in and out, and the scorer behind both."""
