"""What a map tells of itself: events, timings, advice."""
