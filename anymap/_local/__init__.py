"""What backends whose workers run on this host share."""
