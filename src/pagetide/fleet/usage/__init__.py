"""What each VM of a fleet uses over time: read, made up, and put on one regular grid."""
