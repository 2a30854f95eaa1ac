"""What came of searches, told: the leaderboard, in a terminal, for programs and as a page."""
