"""What of the originals is kept, why, and for how long."""
