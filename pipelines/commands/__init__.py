"""One file a command, named as the command, imported when it is called."""
