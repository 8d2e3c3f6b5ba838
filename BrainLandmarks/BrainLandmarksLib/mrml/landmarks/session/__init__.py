"""A review in a Slicer scene: what a person does to the lists goes on record, and back.

A `Session` holds a review and its lists together (`shown_review`). Buttons change the review, which
is shown in the lists (`corrections`); a drag, a click that places a point, or any other change of
the lists, by another module or a script, becomes an edit of the review (`scene_observer`). One
landmark is the active one (`selection`).
"""

from BrainLandmarksLib.mrml.landmarks.session.session import Session

__all__ = ["Session"]
