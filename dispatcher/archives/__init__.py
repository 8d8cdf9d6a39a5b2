"""Folders out of archives that anyone may have made, and archives out of folders.

Standard library alone; knows nothing of jobs, of storage, or of AWS.
"""

from dispatcher.archives.formats import format_of
from dispatcher.archives.model import ArchiveError, Format, Limits
from dispatcher.archives.packing import pack
from dispatcher.archives.unpacking import extract

__all__ = ["ArchiveError", "Format", "Limits", "extract", "format_of", "pack"]
