"""Recognise files with the wrong content: Git LFS pointers, web pages and empty files."""

from __future__ import annotations


def mistaken_for(head: bytes) -> tuple[str, str] | None:
    """Return what a file with the wrong content is, and how to solve it, or None if it is not recognised.

    Args:
        head: The first 512 bytes of the file, or all of a shorter one.

    Returns:
        Two parts of a message, such as ("a Git LFS pointer …", "fetch …").
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
