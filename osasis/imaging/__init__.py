"""Files of pictures → upright sRGB pixels. docs/decoding.md says what is read, and how each case was checked."""
