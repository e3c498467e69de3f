"""Holds the commands of `lsr-infer`, one module each; heavy imports wait until a command line is understood."""
