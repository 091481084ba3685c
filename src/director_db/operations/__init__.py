"""The public operations of `BaseDB` on records, a file for each subject."""
