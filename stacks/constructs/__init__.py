"""One construct per capability, so that a stack reads like its inventory."""
