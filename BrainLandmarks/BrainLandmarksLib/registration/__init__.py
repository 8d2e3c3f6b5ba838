"""One head brought onto another by their landmarks, and what has changed in a head since."""
