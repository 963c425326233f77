"""Which picture formats are decoded, whatever a file is called."""

# of Pillow's names. A file is told by its content, so an EPS called .jpg would start Ghostscript;
# and formats that a picture is hardly ever in are so many more ways to break a decoder.
IMAGE_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "JPEG2000", "AVIF", "TGA", "ICO"),
    *("PCX", "DIB", "SGI", "QOI"),
)
