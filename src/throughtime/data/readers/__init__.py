"""Readers: files, folders, frames and arrays as `Sequences`."""
