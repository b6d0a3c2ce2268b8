"""Many starts at once: lanes that advance together, are watched, and retire in the minimum where they provably end."""
