"""Plans and runs `adapt` from a labelled folder and a clip."""
