"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can put right: one clear sentence saying what is wrong and what to do.

    The command line prints the sentence without a traceback and ends with exit code 2; the Slicer
    modules show it in a message box. Anything else that is raised is a bug in this project.

    >>> raise UserError("head.nii.gz does not exist; check the path.")
    Traceback (most recent call last):
    BrainLandmarksLib.errors.UserError: head.nii.gz does not exist; check the path.
    """
