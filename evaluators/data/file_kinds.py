"""What a file is that is not what its name promises: a Git LFS pointer, a web page, nothing at all."""

from __future__ import annotations


def mistaken_for(head: bytes) -> tuple[str, str] | None:
    """What a file that begins so is, and the remedy, or None where it is nothing known.

    Args:
        head: its first 512 bytes, or all of it where it is shorter.

    Returns:
        ("a Git LFS pointer …", "fetch …"), to be put into a message.
    """
    if not head:
        return "empty", "replace it or remove it"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the content itself", "fetch the content with `git lfs pull`"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")) or (text.startswith(b"<?xml") and b"<html" in text):
        return (
            "a web page, not a download",
            "fetch the file itself: the link of its download button, logged in where the site asks for it",
        )
    if text.startswith((b"<?xml", b"<error>")):
        return "a server's XML answer, not a download", "fetch the file itself, logged in where the site asks for it"
    return None
