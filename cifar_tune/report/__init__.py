"""What came of searches, for people: the leaderboard, its sentences and figures, in a terminal, as files, as a page."""
